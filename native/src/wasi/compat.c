/* What programs of this machine find and wasi-libc does not have. */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

/* Of an exit code a parent gets the lowest eight bits: what is -1 here is 255 to whoever has started the program. */
_Noreturn void __real___wasi_proc_exit(__wasi_exitcode_t code);

_Noreturn void __wrap___wasi_proc_exit(__wasi_exitcode_t code)
{
    __real___wasi_proc_exit(code & 0xff);
}

/* The functions of err.h, which is there. They begin with the program's name. */
static void print_name(void)
{
    size_t count, size;
    if (__wasi_args_sizes_get(&count, &size) || !count)
        return;
    uint8_t **args = malloc(count * sizeof *args), *bytes = malloc(size);
    if (args && bytes && !__wasi_args_get(args, bytes)) {
        char *slash = strrchr((char *)args[0], '/');
        fprintf(stderr, "%s: ", slash ? slash + 1 : (char *)args[0]);
    }
    free(args);
    free(bytes);
}

void vwarnx(const char *format, va_list values)
{
    print_name();
    if (format)
        vfprintf(stderr, format, values);
    putc('\n', stderr);
}

void vwarn(const char *format, va_list values)
{
    int number = errno;
    print_name();
    if (format) {
        vfprintf(stderr, format, values);
        fputs(": ", stderr);
    }
    fprintf(stderr, "%s\n", strerror(number));
}

void verrx(int code, const char *format, va_list values)
{
    vwarnx(format, values);
    exit(code);
}

void verr(int code, const char *format, va_list values)
{
    vwarn(format, values);
    exit(code);
}

void warnx(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vwarnx(format, values);
    va_end(values);
}

void warn(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vwarn(format, values);
    va_end(values);
}

void errx(int code, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    verrx(code, format, values);
}

void err(int code, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    verr(code, format, values);
}
