// SPDX-License-Identifier: Apache-2.0

// Package penstock is an embeddable load balancer.
package penstock
