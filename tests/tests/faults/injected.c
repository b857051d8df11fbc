/* Preloaded into a gateway: makes its clock and its disk behave as a control file says. The file is mapped, so that a
 * test changes what happens by a write to it. Calls that the kernel gets without the C library pass by. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* As `Control` in injected.rs has it. */
static volatile struct {
    int64_t clock_seconds;   /* added to the wall clock */
    int64_t sync_errno;      /* what fsync and fdatasync fail with */
    int64_t sync_delay_ms;   /* how long they take before */
    int64_t write_errno;     /* what a write to the folder's files fails with */
    int64_t change_errno;    /* what a change of the folder's names fails with */
    int64_t injected;        /* calls that were delayed or failed */
} *control, idle;

static const char *folder;

__attribute__((constructor)) static void map(void) {
    const char *path = getenv("INJECTED_FAULTS");
    folder = getenv("INJECTED_FOLDER");
    control = &idle;
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) control = mapped;
    close(file);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int within(const char *path) {
    return folder && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_of_folder(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return within(path);
}

/* Whether a call is to fail, with errno set. */
static int fails(int64_t number) {
    if (!number) return 0;
    __sync_fetch_and_add(&control->injected, 1);
    errno = (int)number;
    return 1;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int result = real(clock, time);
    if (result == 0 && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += control->clock_seconds;
    return result;
}

static int sync_of(int file) {
    if (!is_of_folder(file)) return 0;
    if (control->sync_delay_ms) {
        __sync_fetch_and_add(&control->injected, 1);
        usleep((useconds_t)control->sync_delay_ms * 1000);
    }
    return fails(control->sync_errno);
}

int fsync(int file) { return sync_of(file) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return sync_of(file) ? -1 : REAL(fdatasync)(file); }

ssize_t write(int file, const void *bytes, size_t count) {
    static __typeof__(&write) real;
    if (!real) real = REAL(write);
    if (control && control->write_errno && is_of_folder(file) && fails(control->write_errno)) return -1;
    return real(file, bytes, count);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    if (control->write_errno && is_of_folder(file) && fails(control->write_errno)) return -1;
    return REAL(pwrite64)(file, bytes, count, at);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    int changes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;
    if (control && control->change_errno && changes && within(path) && fails(control->change_errno)) return -1;
    return REAL(open64)(path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
    if (within(path) && fails(control->change_errno)) return -1;
    return REAL(mkdir)(path, mode);
}

int rename(const char *from, const char *to) {
    if (within(to) && fails(control->change_errno)) return -1;
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    if (within(path) && fails(control->change_errno)) return -1;
    return REAL(unlink)(path);
}
