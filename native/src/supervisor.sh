# Leads a process group and runs bubblewrap, whose command line is "$@". $0 is a pipe that never says anything. When it
# hangs up, the group is killed. When bubblewrap has ended, the reader of the pipe is killed, and then whatever
# bubblewrap has left in the group.
# shellcheck shell=sh
unset PWD
# shellcheck disable=SC2034 # read wants a variable.
(read -r never <"$0"; kill -KILL 0) </dev/null >/dev/null 2>&1 &
"$@"
kill -KILL $!; wait; kill -KILL 0
