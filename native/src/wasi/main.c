/* Calls a main of another form than C's two, which the C library does not know.
   RESULT, PARAMETERS and CALL are its form. */
#include <stdlib.h>
#include <sysexits.h>
#include <wasi/api.h>

extern char **environ;

RESULT user_main(PARAMETERS) __asm__(NAME);

/* What the C library calls at the start where a program does not bring it. */
int __main_void(void)
{
    size_t count = 0, size = 0;
    if (__wasi_args_sizes_get(&count, &size))
        _Exit(EX_OSERR);
    char **argv = calloc(count + 1, sizeof *argv), *bytes = malloc(size + 1);
    if (!argv || !bytes || __wasi_args_get((uint8_t **)argv, (uint8_t *)bytes))
        _Exit(EX_OSERR);
    int argc = count;
    (void)argc;
    return CALL;
}
