/* Prints its environment, one variable a line, sorted: a guest has what the request gave it and nothing else. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

static int compare(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

int main(void)
{
    size_t count = 0;
    while (environ != NULL && environ[count] != NULL)
        count++;
    if (count > 0)
        qsort(environ, count, sizeof *environ, compare);
    for (size_t i = 0; i < count; i++)
        puts(environ[i]);
    return fflush(stdout) == 0 ? 0 : 1;
}
