/* err.h's functions, which wasi-libc declares and does not have. As on this machine they begin with the program's name. */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

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
