# Reads the rules that `make -p` prints, and prints the goal and all that it is made of: in the order in which they are
# written, each with its own prerequisites before the next one. The goal is that of the environment, or make's default.
BEGIN { goal = ENVIRON["GOAL"] }
/^\.DEFAULT_GOAL := / && goal == "" { goal = $3 }
/^# Files$/ { files = 1 }
/^# Not a target:$/ { getline; next }
files && /^[^#\t]/ && match($0, /::?( |$)/) {
    path = substr($0, 1, RSTART - 1)
    of[path] = of[path] " " substr($0, RSTART + RLENGTH)
}
function visit(path, count, parts, i) {
    if (path in seen) return
    seen[path]
    print path
    count = split(of[path], parts, " ")
    for (i = 1; i <= count && parts[i] != "|"; i++) visit(parts[i])
}
END { if (goal != "") visit(goal) }
