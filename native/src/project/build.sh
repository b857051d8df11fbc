# Unpacks a project from standard input, makes it, and leaves its program. $1 is the target and $2 the makefile; both
# may be empty. $3 is the platform's program format, $4 the text of prerequisites.awk.
#
# A target that make knows nothing of can still be a program that the default target leaves. To find the program, make
# prints its rules; MAKE=: keeps the makefiles of folders out of that. Where makefiles call others, no rule tells: then
# the program must be the only one there. If there is none, one for another platform is left, to be refused as that.
# shellcheck shell=sh
tar -x -f - || exit
exec 3>&1 >&2 </dev/null
rules() { make ${file:+"-f$file"} -q MAKE=: "$@"; }
wanted=$1 file=$2 goal=$1 format=$3 prerequisites=$4
if [ -n "$goal" ] && rules -- "$goal" 2>&1 | grep -q -F -- "No rule to make target '$goal'.  Stop."; then goal=; fi
make ${file:+"-f$file"} -- ${goal:+"$goal"} 3>&- || exit
is_program() {
    case $1 in *.so | *.so.*) return 1 ;; esac
    [ -f "$1" ] && [ -x "$1" ] && [ "$(head -c 4 -- "$1" | tr -d '\0\177')" = "${2:-$format}" ]
}
if [ -n "$wanted" ]; then
    is_program "$wanted" && take "$wanted"
    [ -n "$goal" ] || { echo "error: the build left no program $wanted"; exit 1; }
fi
set -f
IFS='
'
for path in $(rules -p 2>/dev/null | GOAL=$goal awk "$prerequisites"); do
    is_program "$path" && take "$path"
done
only='' all='' count=0 foreign=''
# shellcheck disable=SC2044 # IFS and set -f make one word of each line.
for path in $(find . -type f -perm -100); do
    is_program "$path" && only=$path all="$all ${path#./}" count=$((count + 1))
    is_program "$path" ELF && foreign=$path
done
[ "$count" = 0 ] && [ -n "$foreign" ] && take "$foreign"
case $count in
    0) echo "error: the build left no program${wanted:+ $wanted}" ;;
    1) take "$only" ;;
    *) echo "error: the build left several programs, and \`target\` names none:$all" ;;
esac
exit 1
