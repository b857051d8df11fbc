//! Source as the deployed devices send it.

/// What they send as the build part.
pub const COMMAND: &str = "gcc <name>.c -o <name>";

/// What a Raspberry Pi with a makefile sends.
pub const MAKEFILE: &str = "CC=gcc\nall: <name>\n<name>: <name>.o\n\t$(CC) -o <name> <name>.o\n<name>.o: <name>.c\n\t$(CC) -c <name>.c\n";

/// The legacy text of these four parts.
pub fn legacy(name: &str, args: &str, source: &str, build: &str) -> String {
    format!("{name}----{args}----{source}----{build}")
}

/// The program's main function around these statements.
pub fn program(statements: &str) -> String {
    format!(
        "#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
         int main(int argc, char **argv) {{ {statements} }}\n"
    )
}
