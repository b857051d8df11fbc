# Finds out whether programs can be built for WASI: compiles, makes a library and links with it, and tries C++ too. $1
# is what the library is made of, $2 a program in C, $3 one in C++. Leaves on standard output a line about the languages
# and the compiler, and the library.
# shellcheck shell=sh
exec 3>&1 >&2
printf '%s' "$1" >compat.c && cc -Werror -c compat.c && ar rcs libcompat.a compat.o || exit
printf '%s' "$2" >program.c && cc -Werror program.c -o program -L. -lm || exit
languages=C
printf '%s' "$3" >plus.cpp && c++ plus.cpp -o plus -L. 2>/dev/null && languages='C and C++'
echo "$languages, $(cc --version | head -n 1)" >&3
cat libcompat.a >&3
