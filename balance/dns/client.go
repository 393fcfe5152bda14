// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/penstock-lb/penstock/balance"
)

// A client asks name servers.
type client struct {
	servers []string
	timeout time.Duration
	tries   int
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
}

// An answer is the records that a name turned out to have.
type answer struct {
	records []dnsmessage.ResourceBody
	ttl     time.Duration // the shortest, of aliases too
}

// ask asks one name server after the other until one gives an answer, positive or not.
// The error is ErrNoName, ErrNoAnswer with what went wrong, or ctx's cause.
func (c *client) ask(ctx context.Context, name string, kind dnsmessage.Type) (answer, error) {
	var errs error
	for range c.tries {
		for _, server := range c.servers {
			ans, err := c.askOne(ctx, server, name, kind)
			if err == nil || errors.Is(err, ErrNoName) {
				return ans, err
			}
			if ctx.Err() != nil {
				return answer{}, context.Cause(ctx)
			}
			errs = errors.Join(errs, fmt.Errorf("%s: %w", server, err))
		}
	}
	return answer{}, fmt.Errorf("%w to %s %s: %w", ErrNoAnswer, name, kind, errs)
}

// askOne asks one server, by TCP if the answer does not fit into a datagram.
func (c *client) askOne(ctx context.Context, server, name string, kind dnsmessage.Type) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	q, err := newQuestion(name, kind)
	if err != nil {
		return answer{}, err
	}
	ans, truncated, err := c.exchange(ctx, "udp", server, q)
	if err == nil && truncated {
		ans, _, err = c.exchange(ctx, "tcp", server, q)
	}
	return ans, err
}

// exchange sends q and waits for the answer to it, whatever else arrives.
func (c *client) exchange(ctx context.Context, network, server string, q *question) (ans answer, truncated bool, err error) {
	conn, err := c.dial(ctx, network, server)
	if conn, err = balance.Dialed("Source.DialContext", conn, err); err != nil {
		return answer{}, false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	msg := q.packed
	if network == "tcp" {
		msg = append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
	}
	if _, err := conn.Write(msg); err != nil {
		return answer{}, false, timeoutOr(ctx, err)
	}
	buf := make([]byte, 65535)
	for {
		n, err := readMessage(conn, network, buf)
		if err != nil {
			return answer{}, false, timeoutOr(ctx, err)
		}
		ans, truncated, err := q.parse(buf[:n])
		if err == errStranger && network == "udp" {
			continue // late, or forged
		}
		return ans, truncated, err
	}
}

// timeoutOr returns why ctx ended, if it did, rather than that its conn is closed.
func timeoutOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// readMessage reads one message into buf, which has room for any.
func readMessage(conn net.Conn, network string, buf []byte) (int, error) {
	if network != "tcp" {
		return conn.Read(buf)
	}
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(buf))
	return io.ReadFull(conn, buf[:n])
}

// errStranger means that a message is no answer to the question.
var errStranger = errors.New("not the answer to this question")

// A question is what one message asks.
type question struct {
	id     uint16
	name   dnsmessage.Name
	kind   dnsmessage.Type
	packed []byte
}

func newQuestion(name string, kind dnsmessage.Type) (*question, error) {
	n, err := dnsmessage.NewName(dot(name))
	if err != nil {
		return nil, err
	}
	q := &question{id: uint16(rand.Uint32()), name: n, kind: kind}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: q.id, RecursionDesired: true})
	b.EnableCompression()
	var opt dnsmessage.ResourceHeader
	err = errors.Join(b.StartQuestions(),
		b.Question(dnsmessage.Question{Name: n, Type: kind, Class: dnsmessage.ClassINET}),
		b.StartAdditionals(),
		// EDNS0: datagrams that are not fragmented on the way (DNS flag day 2020).
		opt.SetEDNS0(1232, dnsmessage.RCodeSuccess, false),
		b.OPTResource(opt, dnsmessage.OPTResource{}))
	if err != nil {
		return nil, err
	}
	q.packed, err = b.Finish()
	return q, err
}

// parse reads the answer to q.
func (q *question) parse(msg []byte) (ans answer, truncated bool, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil {
		return answer{}, false, errStranger
	}
	asked, err := p.Question()
	if err != nil || !h.Response || h.ID != q.id || asked.Type != q.kind || asked.Class != dnsmessage.ClassINET ||
		!strings.EqualFold(asked.Name.String(), q.name.String()) {
		return answer{}, false, errStranger
	}
	if h.RCode == dnsmessage.RCodeNameError {
		return answer{}, false, fmt.Errorf("%w: %s", ErrNoName, q.name)
	}
	if h.RCode != dnsmessage.RCodeSuccess {
		return answer{}, false, fmt.Errorf("name server says %s", h.RCode)
	}
	if h.Truncated {
		return answer{}, true, nil
	}
	if err := p.SkipAllQuestions(); err != nil {
		return answer{}, false, err
	}
	all, err := p.AllAnswers()
	if err != nil {
		return answer{}, false, err
	}
	ans = q.follow(all)
	if len(ans.records) == 0 {
		return answer{}, false, fmt.Errorf("%w: %s has no %s records", ErrNoName, q.name, q.kind)
	}
	return ans, false, nil
}

// follow picks the records of the name asked for out of an answer, by way of its
// aliases (CNAME), which come in any order.
func (q *question) follow(all []dnsmessage.Resource) answer {
	// An answer may hold thousands of aliases, so each record is looked at once
	// to file it under its name, and each name is followed once.
	byName := make(map[string][]*dnsmessage.Resource)
	for i := range all {
		name := strings.ToLower(all[i].Header.Name.String())
		byName[name] = append(byName[name], &all[i])
	}
	ans := answer{ttl: -1}
	note := func(r *dnsmessage.Resource) {
		ttl := time.Duration(r.Header.TTL) * time.Second
		if r.Header.TTL > 1<<31-1 {
			ttl = 0 // RFC 2181, section 8
		}
		if ans.ttl < 0 || ttl < ans.ttl {
			ans.ttl = ttl
		}
	}
	for name := strings.ToLower(q.name.String()); name != "" && len(ans.records) == 0; {
		records := byName[name]
		delete(byName, name)
		name = ""
		for _, r := range records {
			if r.Header.Type == q.kind {
				ans.records = append(ans.records, r.Body)
				note(r)
			} else if c, ok := r.Body.(*dnsmessage.CNAMEResource); ok {
				name = strings.ToLower(c.CNAME.String())
				note(r)
			}
		}
	}
	return ans
}

// dot makes a name absolute.
func dot(name string) string {
	if strings.HasSuffix(name, ".") {
		return name
	}
	return name + "."
}

// systemServers returns the name servers of /etc/resolv.conf.
func systemServers() ([]string, error) {
	f, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseServers(f)
}

// parseServers reads the nameserver lines of a resolv.conf.
func parseServers(r io.Reader) ([]string, error) {
	var servers []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) >= 2 && f[0] == "nameserver" {
			if _, err := netip.ParseAddr(f[1]); err == nil {
				servers = append(servers, net.JoinHostPort(f[1], "53"))
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(servers) == 0 {
		return nil, errors.New("no nameserver line")
	}
	return servers, nil
}
