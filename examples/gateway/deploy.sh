#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A rolling deploy without a lost request. Each server in turn is drained, replaced by
# COMMAND, which gets its name and address, and used again; the next follows once its checks pass:
#
#     deploy.sh ADMIN_PAGE POOL "SERVER..." COMMAND [ARGUMENT...]
#     deploy.sh http://127.0.0.1:9090 web "one two" echo "your command would replace"
set -euo pipefail
[ $# -ge 4 ] || { sed -n '4,8s/^# *//p' "$0" >&2; exit 2; }
admin=${1%/} pool=$2 servers=$3
shift 3
type -P -- "$1" >/dev/null || { # before a server is drained for nothing
	echo "deploy.sh: cannot run $1: give a program that replaces a server; it gets the server's name and address as its last arguments" >&2
	exit 2
}

# act SERVER FIELD=VALUE...: does an action, and prints how the server is then.
act() {
	local server=$1 form=() field
	shift
	for field in "$@"; do form+=(--data-urlencode "$field"); done
	curl -sS --fail-with-body --max-time 120 --data-urlencode "pool=$pool" --data-urlencode "server=$server" \
		-d reason=deploy "${form[@]}" "$admin/action"
}

for server in $servers; do
	echo "$server: drains"
	# New clients go to other servers, then those with a session too (l7.Persist, l7.Stick): a
	# server in drain still gets theirs. What is left after a minute and a half is cut.
	was=$(act "$server" action=drain wait=drained timeout=30s) || [[ $was = *'"addr"'* ]]
	act "$server" action=maint wait=drained timeout=60s >/dev/null || act "$server" action=cut >/dev/null
	addr=$(sed -n 's/.*"addr":"\([^"]*\)".*/\1/p' <<<"$was")
	echo "$server: is replaced"
	"$@" "$server" "$addr"
	act "$server" action=ready wait=up timeout=60s >/dev/null
	echo "$server: is back"
done
