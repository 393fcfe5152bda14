# SPDX-License-Identifier: Apache-2.0
# Shared by the scripts beside it. What background starts ends with the script.

tmp=$(mktemp -d) || exit 1
started=()
cleanup() {
	[ ${#started[@]} -eq 0 ] || kill "${started[@]}" 2>/dev/null || true # some have ended
	wait 2>/dev/null || true
	rm -rf "$tmp"
}
trap cleanup EXIT

# modules prints the folders of the nested modules.
modules() { find . -mindepth 2 -name go.mod -not -path '*/testdata/*' -printf '%h\n' | sort; }

# published prints those of them that programs import: they have more than tests.
published() {
	local m
	for m in $(modules); do
		[[ $m = ./examples/* ]] || ! ls "$m"/*.go | grep -qvE '(_test|/doc)\.go$' || echo "$m"
	done
}

# free_port prints a port of 127.0.0.1 on which nobody listens.
free_port() {
	local p
	while :; do
		p=$((3000 + RANDOM % 7000)) # below any range the kernel hands out itself
		(: <"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo $p; return; }
	done
}

# wait_port waits until something listens on port $1, up to ten seconds.
wait_port() {
	for _ in {1..100}; do
		(: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
		sleep 0.1
	done
	echo "nothing listens on port $1"
	return 1
}

# background starts a command, its output in $tmp/NAME.log, its id in $pid.
background() {
	local name=$1
	shift
	"$@" >"$tmp/$name.log" 2>&1 &
	pid=$!
	started+=("$pid")
}

# fail prints a reason and the end of every log, and ends the script.
fail() {
	echo "FAIL: $*"
	tail -n 40 "$tmp"/*.log
	exit 1
}
