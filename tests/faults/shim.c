/* A library to preload: it counts the calls that change files below one folder, and has the N-th of them fail.
 *
 * Linux with glibc. A forked child of the campaign arms it for itself through `faults_arm`; until then, and in the programs
 * that the child starts, every call goes straight through. Files are known by their path, those that are open by what
 * /proc/self/fd says of them, so nothing has to be remembered.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* What happens at the N-th call. */
enum { COUNT, FAIL, FAIL_FROM_HERE, SHORT, SIGNAL_BEFORE, SIGNAL_AFTER };

static char folder[PATH_MAX];
static size_t folder_length;
static long nth, count;
static int action, value, journal = -1;

/* Watch `path` (absolute, no links in it): at call `n`, from 1, do `what`, with the errno or the signal `with`. A line for
 * each call goes to the descriptor `log`, unless that is -1. */
void faults_arm(const char *path, long n, int what, int with, int log)
{
    snprintf(folder, sizeof folder, "%s", path);
    nth = n, action = what, value = with, journal = log, count = 0;
    folder_length = strlen(folder);
}

static int below(const char *path)
{
    return folder_length && !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

/* The path of `name` as seen from the directory `at`, in `path`; 0 where it cannot be known. */
static int located(int at, const char *name, char *path)
{
    char link[64];
    ssize_t length = 0;
    if (!folder_length)
        return 0;
    if (name && *name == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return 1;
    }
    if (at == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    if (name && *name)
        snprintf(path + length, PATH_MAX - length, "/%s", name);
    return 1;
}

/* A call `name` on `path` is about to be made: 0, it is to be made; 1, it fails, errno is set; 2, it is cut short;
 * 3, it is to be made and then `after` called. */
static int decide(const char *name, const char *path)
{
    char line[PATH_MAX + 64];
    long number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (journal >= 0) {
        int length = snprintf(line, sizeof line, "%s\t%s\n", name, path + folder_length);
        syscall(SYS_write, journal, line, length);
    }
    if (action == FAIL_FROM_HERE ? number < nth : number != nth)
        return 0;
    if (action == FAIL || action == FAIL_FROM_HERE) {
        errno = value;
        return 1;
    }
    if (action == SHORT)
        return 2;
    if (action == SIGNAL_BEFORE)
        kill(getpid(), value);
    return action == SIGNAL_AFTER ? 3 : 0;
}

static int about_path(const char *name, int at, const char *file)
{
    char path[PATH_MAX];
    return located(at, file, path) && below(path) ? decide(name, path) : 0;
}

static int about_open_file(const char *name, int fd)
{
    char path[PATH_MAX];
    return located(fd, NULL, path) && below(path) ? decide(name, path) : 0;
}

static void after(int decision)
{
    int kept = errno;
    if (decision == 3)
        kill(getpid(), value);
    errno = kept;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);

/* Define `type name parameters`, which asks `question` first and fails with -1. */
#define WRAP(type, name, parameters, arguments, question) \
    type name parameters \
    { \
        REAL(name) \
        int decision = question; \
        if (decision == 1) \
            return -1; \
        type result = real arguments; \
        after(decision); \
        return result; \
    }

#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))

#define OPEN(name, first, at, arguments) \
    int name(first const char *path, int flags, ...) \
    { \
        REAL(name) \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        int decision = CHANGES(flags) ? about_path("open", at, path) : 0; \
        if (decision == 1) \
            return -1; \
        int result = real arguments; \
        after(decision); \
        return result; \
    }
#define NOTHING
#define DIRECTORY int at,
OPEN(open, NOTHING, AT_FDCWD, (path, flags, mode))
OPEN(open64, NOTHING, AT_FDCWD, (path, flags, mode))
OPEN(openat, DIRECTORY, at, (at, path, flags, mode))
OPEN(openat64, DIRECTORY, at, (at, path, flags, mode))

WRAP(int, creat, (const char *path, mode_t mode), (path, mode), about_path("open", AT_FDCWD, path))
WRAP(int, creat64, (const char *path, mode_t mode), (path, mode), about_path("open", AT_FDCWD, path))

/* A write may also be cut short: half of the bytes are written, and the caller has to see to the rest. */
#define WRITE(name, parameters, arguments) \
    ssize_t name parameters \
    { \
        REAL(name) \
        int decision = about_open_file("write", fd); \
        if (decision == 1) \
            return -1; \
        if (decision == 2 && size > 1) \
            size /= 2; \
        ssize_t result = real arguments; \
        after(decision); \
        return result; \
    }
WRITE(write, (int fd, const void *buffer, size_t size), (fd, buffer, size))
WRITE(pwrite, (int fd, const void *buffer, size_t size, off_t offset), (fd, buffer, size, offset))
WRITE(pwrite64, (int fd, const void *buffer, size_t size, off64_t offset), (fd, buffer, size, offset))
WRAP(ssize_t, writev, (int fd, const struct iovec *parts, int n), (fd, parts, n), about_open_file("write", fd))

ssize_t sendfile(int, int, off_t *, size_t);
ssize_t sendfile64(int, int, off64_t *, size_t);
WRITE(sendfile, (int fd, int from, off_t *offset, size_t size), (fd, from, offset, size))
WRITE(sendfile64, (int fd, int from, off64_t *offset, size_t size), (fd, from, offset, size))
WRITE(copy_file_range, (int from, off64_t *a, int fd, off64_t *b, size_t size, unsigned flags), (from, a, fd, b, size, flags))

WRAP(int, fsync, (int fd), (fd), about_open_file("fsync", fd))
WRAP(int, fdatasync, (int fd), (fd), about_open_file("fsync", fd))
WRAP(int, ftruncate, (int fd, off_t size), (fd, size), about_open_file("truncate", fd))
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size), about_open_file("truncate", fd))
WRAP(int, truncate, (const char *path, off_t size), (path, size), about_path("truncate", AT_FDCWD, path))
WRAP(int, truncate64, (const char *path, off64_t size), (path, size), about_path("truncate", AT_FDCWD, path))
WRAP(int, fallocate, (int fd, int mode, off_t from, off_t size), (fd, mode, from, size), about_open_file("allocate", fd))
WRAP(int, fallocate64, (int fd, int mode, off64_t from, off64_t size), (fd, mode, from, size), about_open_file("allocate", fd))
WRAP(int, flock, (int fd, int operation), (fd, operation), about_open_file("lock", fd))

/* Of the renames and links the new name is asked for. */
WRAP(int, rename, (const char *old, const char *new), (old, new), about_path("rename", AT_FDCWD, new))
WRAP(int, renameat, (int from, const char *old, int to, const char *new), (from, old, to, new), about_path("rename", to, new))
WRAP(int, renameat2, (int from, const char *old, int to, const char *new, unsigned flags), (from, old, to, new, flags),
     about_path("rename", to, new))
WRAP(int, link, (const char *old, const char *new), (old, new), about_path("link", AT_FDCWD, new))
WRAP(int, linkat, (int from, const char *old, int to, const char *new, int flags), (from, old, to, new, flags),
     about_path("link", to, new))
WRAP(int, symlink, (const char *old, const char *new), (old, new), about_path("link", AT_FDCWD, new))
WRAP(int, unlink, (const char *path), (path), about_path("unlink", AT_FDCWD, path))
WRAP(int, unlinkat, (int at, const char *path, int flags), (at, path, flags), about_path("unlink", at, path))
WRAP(int, rmdir, (const char *path), (path), about_path("rmdir", AT_FDCWD, path))
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), about_path("mkdir", AT_FDCWD, path))
WRAP(int, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode), about_path("mkdir", at, path))
WRAP(int, chmod, (const char *path, mode_t mode), (path, mode), about_path("chmod", AT_FDCWD, path))
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode), about_open_file("chmod", fd))
WRAP(int, fchmodat, (int at, const char *path, mode_t mode, int flags), (at, path, mode, flags), about_path("chmod", at, path))
WRAP(int, utimensat, (int at, const char *path, const struct timespec times[2], int flags), (at, path, times, flags),
     about_path("utime", at, path))

/* An error of close comes after the file has been closed. */
int close(int fd)
{
    REAL(close)
    int flags = folder_length ? syscall(SYS_fcntl, fd, F_GETFL) : -1;
    int decision = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY ? about_open_file("close", fd) : 0;
    int wanted = errno;
    int result = real(fd);
    if (decision == 1) {
        errno = wanted;
        return -1;
    }
    after(decision);
    return result;
}

#define LOCKS(command) ((command) == F_SETLK || (command) == F_SETLKW || (command) == F_OFD_SETLK)
#define CONTROL(name) \
    int name(int fd, int command, ...) \
    { \
        REAL(name) \
        va_list rest; \
        va_start(rest, command); \
        void *argument = va_arg(rest, void *); \
        va_end(rest); \
        int decision = LOCKS(command) ? about_open_file("lock", fd) : 0; \
        if (decision == 1) \
            return -1; \
        int result = real(fd, command, argument); \
        after(decision); \
        return result; \
    }
CONTROL(fcntl)
CONTROL(fcntl64)

#define MAP(name, offset_t) \
    void *name(void *at, size_t size, int protection, int flags, int fd, offset_t offset) \
    { \
        REAL(name) \
        int writes = fd >= 0 && protection & PROT_WRITE && flags & MAP_SHARED; \
        int decision = writes ? about_open_file("map", fd) : 0; \
        if (decision == 1) \
            return MAP_FAILED; \
        void *result = real(at, size, protection, flags, fd, offset); \
        after(decision); \
        return result; \
    }
MAP(mmap, off_t)
MAP(mmap64, off64_t)
