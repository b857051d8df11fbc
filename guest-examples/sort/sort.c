/* Sorts the lines of its input by their bytes. A last line without line end gets one. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct line {
    const char *text;
    size_t length;
};

static int compare(const void *left, const void *right)
{
    const struct line *a = left, *b = right;
    size_t shorter = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->text, b->text, shorter);
    if (order != 0)
        return order;
    return (a->length > b->length) - (a->length < b->length);
}

static void *enlarged(void *memory, size_t size)
{
    memory = realloc(memory, size);
    if (memory == NULL) {
        fprintf(stderr, "sort: not enough memory\n");
        exit(1);
    }
    return memory;
}

int main(void)
{
    char *input = NULL;
    size_t length = 0, capacity = 0, got;
    do {
        if (length == capacity) {
            capacity = capacity == 0 ? 65536 : capacity * 2;
            input = enlarged(input, capacity);
        }
        got = fread(input + length, 1, capacity - length, stdin);
        length += got;
    } while (got > 0);
    if (ferror(stdin)) {
        perror("sort: stdin");
        return 1;
    }

    struct line *lines = NULL;
    size_t count = 0, room = 0;
    for (size_t start = 0; start < length; count++) {
        if (count == room) {
            room = room == 0 ? 1024 : room * 2;
            lines = enlarged(lines, room * sizeof *lines);
        }
        const char *end = memchr(input + start, '\n', length - start);
        lines[count].text = input + start;
        lines[count].length = end == NULL ? length - start : (size_t)(end - (input + start));
        start += lines[count].length + 1;
    }
    if (count > 0)
        qsort(lines, count, sizeof *lines, compare);
    for (size_t i = 0; i < count; i++) {
        fwrite(lines[i].text, 1, lines[i].length, stdout);
        putchar('\n');
    }
    free(lines);
    free(input);
    return fflush(stdout) == 0 ? 0 : 1;
}
