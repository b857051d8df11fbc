//! Source as the deployed devices send it.

/// What they send as the build part.
pub const COMMAND: &str = "gcc <name>.c -o <name>";

/// What a Raspberry Pi with a makefile sends.
pub const MAKEFILE: &str = "CC=gcc\nall: <name>\n<name>: <name>.o\n\t$(CC) -o <name> <name>.o\n<name>.o: <name>.c\n\t$(CC) -c <name>.c\n";

/// A program that prints what each file that it is told holds, its size and its last byte, or how many files a folder
/// holds; else why it cannot be read. It tries to write it, too.
pub const READER: &str = r#"
    #include <dirent.h>
    #include <errno.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/stat.h>
    int main(int n, char **names) {
        for (int i = 1; i < n; i++) {
            char text[99] = {0};
            struct stat found;
            DIR *folder = opendir(names[i]);
            FILE *file = folder ? 0 : fopen(names[i], "r");
            if (folder) {
                struct dirent *entry;
                int files = 0;
                while ((entry = readdir(folder))) files += entry->d_name[0] != '.';
                printf("%d files", files);
            } else if (file && !stat(names[i], &found)) {
                fread(text, 1, sizeof text - 1, file);
                fseek(file, -1, SEEK_END);
                printf("%s,%d,%c", text, (int)found.st_size, fgetc(file));
            } else
                printf("%s", strerror(errno));
            printf(fopen(names[i], "r+") ? " written|" : "|");
        }
        return 0;
    }"#;

/// A makefile for it that makes files of its own.
pub const MAKES_FILES: &str = "reader: main.c out/table.txt\n\tgcc $< -o $@\nout/table.txt: data.txt\n\tmkdir -p out\n\t\
                               tr a-z A-Z <$< >$@\n\tln -s table.txt out/link\n";

/// The legacy text of these four parts.
pub fn legacy(name: &str, args: &str, source: &str, build: &str) -> String {
    format!("{name}----{args}----{source}----{build}")
}

/// The program's main function around these statements.
pub fn program(statements: &str) -> String {
    format!(
        "#include <assert.h>\n#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
         int main(int argc, char **argv) {{ {statements} }}\n"
    )
}
