/*
 * Records every effect on the files below one folder that matters when the power is cut. Loaded with LD_PRELOAD; power_cut.py reads the record
 * and builds from it what a disk may hold after a cut.
 *
 *   POWER_CUT_DIR         the folder, as an absolute path without symbolic links
 *   POWER_CUT_LOG         the log; other processes may append to it too
 *   POWER_CUT_SYNC_EACH   if set, each write is recorded as if it had been synced at once
 *
 * Each record is appended by one call, so the records of all threads and processes have one order. That order is the order of the effects:
 *   - A change and its record are made under one lock. A change that does not succeed in full ends the process: its record would be a lie.
 *   - A record precedes its change, so that nobody who learns of the change can write to the log before it. (A file that is created has its
 *     record after, since only then its inode is known, but still before anybody is told.)
 *   - A sync has two records. Only what was recorded before the first is durable, and only once the second is there; the second is written after
 *     the kernel said that the sync succeeded.
 * What it does not see (mapped writes, copy_file_range, copied descriptors) is found by power_cut.py, which holds the record against the real
 * files. sync_file_range promises nothing about a power cut, so it is not recorded. SQLite's -shm files are rebuilt after a cut and left out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN = 1, CLOSE, WRITE, TRUNCATE, ALLOCATE, SYNC_BEGIN, SYNC_END, RENAME, UNLINK, MAKE_FOLDER };
enum { CREATED = 1, FOLDER = 2 }; /* `number` of OPEN */
enum { MOST_FILES = 65536, MOST_PIECES = IOV_MAX };

struct head {
    char magic[4];     /* "PCUT" */
    uint32_t length;   /* of the whole record */
    uint16_t kind;
    uint16_t names;    /* bytes of name that follow; the data follow them */
    uint32_t spare;
    uint64_t inode;
    uint64_t number;   /* offset, size, flags or the id of a sync */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint64_t watched[MOST_FILES]; /* by descriptor: the inode; 0: not ours */
static _Atomic uint32_t syncs;
static char root[PATH_MAX];
static size_t root_length;
static int log_file = -1;
static bool sync_each;

static void die(const char *what) {
    char text[256];
    int length = snprintf(text, sizeof text, "power_cut: %s: %s\n", what, strerror(errno));
    (void)!syscall(SYS_write, 2, text, (size_t)length);
    abort();
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("POWER_CUT_DIR"), *log = getenv("POWER_CUT_LOG");
    if (!folder || !log)
        return;
    root_length = (size_t)snprintf(root, sizeof root, "%s", folder);
    sync_each = getenv("POWER_CUT_SYNC_EACH") != NULL;
    log_file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_file < 0 || root_length >= sizeof root)
        die("cannot begin");
}

static void record(enum kind kind, uint64_t inode, uint64_t number, const char *name, size_t names, const struct iovec *data, int pieces) {
    struct head head = {.magic = "PCUT", .kind = (uint16_t)kind, .names = (uint16_t)names, .inode = inode, .number = number};
    struct iovec all[MOST_PIECES] = {{&head, sizeof head}, {(void *)name, names}};
    size_t length = sizeof head + names;
    if (pieces > MOST_PIECES - 2)
        die("too many pieces in one write");
    for (int i = 0; i < pieces; i++) {
        all[i + 2] = data[i];
        length += data[i].iov_len;
    }
    if (length > UINT32_MAX)
        die("too long a record");
    head.length = (uint32_t)length;
    if (syscall(SYS_writev, log_file, all, pieces + 2) != (ssize_t)length)
        die("cannot append to the log");
}

/* A name below the folder, relative to it ("" is the folder itself); NULL: not ours. */
static const char *ours(const char *path) {
    size_t length = strlen(path);
    if (log_file < 0 || strncmp(path, root, root_length) != 0 || (path[root_length] && path[root_length] != '/'))
        return NULL;
    if (length > 4 && strcmp(path + length - 4, "-shm") == 0)
        return NULL;
    return path[root_length] ? path + root_length + 1 : "";
}

/* The same for a name that a call gave; `text` is where it is put. The last component is not followed: that is what unlink and rename want. */
static const char *below(int folder, const char *path, char text[PATH_MAX]) {
    char parent[PATH_MAX], link[PATH_MAX + 32];
    const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
    if (log_file < 0)
        return NULL;
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path + 1) : 1, slash ? path : ".");
    int fd = (int)syscall(SYS_openat, folder, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, text, PATH_MAX - 1);
    syscall(SYS_close, fd);
    if (length < 0 || snprintf(text + length, (size_t)(PATH_MAX - length), "/%s", last) >= PATH_MAX - length)
        return NULL;
    return ours(text);
}

static uint64_t inode_of(int fd) {
    return fd >= 0 && fd < MOST_FILES ? atomic_load(&watched[fd]) : 0;
}

/* ---- names ---- */

static int open_any(int folder, const char *path, int flags, mode_t mode) {
    char link[64], full[PATH_MAX];
    const char *name;
    struct stat is;
    bool creates = flags & O_CREAT, empties = flags & O_TRUNC;
    if (log_file < 0)
        return (int)syscall(SYS_openat, folder, path, flags, mode);
    if (creates || empties)
        pthread_mutex_lock(&lock);
    bool was = !creates || syscall(SYS_faccessat, folder, path, F_OK) == 0;
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    int saved = errno;
    if (fd >= 0 && fd < MOST_FILES && fstat(fd, &is) == 0 && (S_ISREG(is.st_mode) || S_ISDIR(is.st_mode))) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, full, sizeof full - 1);
        full[length < 0 ? 0 : length] = 0;
        if ((name = ours(full))) {
            if ((flags & (O_SYNC | O_DSYNC)) || (flags & O_TMPFILE) == O_TMPFILE)
                die("opened in a way whose durability is not modelled");
            atomic_store(&watched[fd], is.st_ino);
            record(OPEN, is.st_ino, (was ? 0 : CREATED) | (S_ISDIR(is.st_mode) ? FOLDER : 0), name, strlen(name), NULL, 0);
            if (empties && was)
                record(TRUNCATE, is.st_ino, 0, "", 0, NULL, 0);
        }
    }
    if (creates || empties)
        pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

static mode_t mode_of(int flags, va_list rest) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return open_any(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return open_any(folder, path, flags, mode);
}

int creat(const char *path, mode_t mode) {
    return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int fd) {
    uint64_t inode = inode_of(fd);
    if (inode) {
        atomic_store(&watched[fd], 0);
        record(CLOSE, inode, 0, "", 0, NULL, 0);
    }
    return (int)syscall(SYS_close, fd);
}

int unlinkat(int folder, const char *path, int flags) {
    char text[PATH_MAX];
    const char *name = flags & AT_REMOVEDIR ? NULL : below(folder, path, text);
    if (!name)
        return (int)syscall(SYS_unlinkat, folder, path, flags);
    pthread_mutex_lock(&lock);
    bool there = syscall(SYS_faccessat, folder, path, F_OK) == 0;
    if (there)
        record(UNLINK, 0, 0, name, strlen(name), NULL, 0);
    int result = (int)syscall(SYS_unlinkat, folder, path, flags);
    if (there && result != 0)
        die("a recorded unlink failed");
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    return unlinkat(AT_FDCWD, path, 0);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    char first[PATH_MAX], second[PATH_MAX], both[2 * PATH_MAX];
    const char *old = below(from_folder, from, first), *new = below(to_folder, to, second);
    if (!old && !new)
        return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    if (!old || !new || flags)
        die("renamed in a way that is not modelled");
    pthread_mutex_lock(&lock);
    bool there = syscall(SYS_faccessat, from_folder, from, F_OK) == 0;
    size_t length = (size_t)snprintf(both, sizeof both, "%s%c%s", old, 0, new);
    if (there)
        record(RENAME, 0, 0, both, length, NULL, 0);
    int result = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    if (there && result != 0)
        die("a recorded rename failed");
    pthread_mutex_unlock(&lock);
    return result;
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    return renameat2(from_folder, from, to_folder, to, 0);
}

int rename(const char *from, const char *to) {
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int mkdirat(int folder, const char *path, mode_t mode) {
    char text[PATH_MAX];
    const char *name = below(folder, path, text);
    int result = (int)syscall(SYS_mkdirat, folder, path, mode);
    if (name && result == 0)
        record(MAKE_FOLDER, 0, 0, name, strlen(name), NULL, 0);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    return mkdirat(AT_FDCWD, path, mode);
}

/* ---- contents ---- */

static void synced(uint64_t inode) {
    uint64_t id = (uint64_t)getpid() << 32 | atomic_fetch_add(&syncs, 1);
    record(SYNC_BEGIN, inode, id, "", 0, NULL, 0);
    record(SYNC_END, inode, id, "", 0, NULL, 0);
}

/* `offset` -1: at the position of the descriptor. */
static ssize_t write_any(int fd, uint64_t inode, const struct iovec *pieces, int count, off_t offset) {
    struct stat is;
    ssize_t length = 0, done;
    for (int i = 0; i < count; i++)
        length += (ssize_t)pieces[i].iov_len;
    pthread_mutex_lock(&lock);
    off_t at = offset;
    if (fcntl(fd, F_GETFL) & O_APPEND)
        at = fstat(fd, &is) == 0 ? is.st_size : -1;
    else if (offset < 0)
        at = lseek(fd, 0, SEEK_CUR);
    if (at < 0)
        die("cannot tell where a write goes");
    record(WRITE, inode, (uint64_t)at, "", 0, pieces, count);
    if (offset < 0)
        done = syscall(SYS_writev, fd, pieces, count);
    else
        done = syscall(SYS_pwritev, fd, pieces, count, offset, 0L);
    if (done != length)
        die("a recorded write failed");
    if (sync_each)
        synced(inode);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *data, size_t length) {
    uint64_t inode = inode_of(fd);
    struct iovec piece = {(void *)data, length};
    return inode ? write_any(fd, inode, &piece, 1, -1) : syscall(SYS_write, fd, data, length);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    uint64_t inode = inode_of(fd);
    return inode ? write_any(fd, inode, pieces, count, -1) : syscall(SYS_writev, fd, pieces, count);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    uint64_t inode = inode_of(fd);
    struct iovec piece = {(void *)data, length};
    return inode ? write_any(fd, inode, &piece, 1, offset) : syscall(SYS_pwrite64, fd, data, length, offset);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
    uint64_t inode = inode_of(fd);
    return inode ? write_any(fd, inode, pieces, count, offset) : syscall(SYS_pwritev, fd, pieces, count, offset, 0L);
}

ssize_t pwritev2(int fd, const struct iovec *pieces, int count, off_t offset, int flags) {
    uint64_t inode = inode_of(fd);
    if (inode && flags)
        die("written in a way that is not modelled");
    return inode ? write_any(fd, inode, pieces, count, offset) : syscall(SYS_pwritev2, fd, pieces, count, offset, 0L, flags);
}

static int resize(int fd, const char *path, uint64_t inode, off_t size) {
    pthread_mutex_lock(&lock);
    record(TRUNCATE, inode, (uint64_t)size, "", 0, NULL, 0);
    if (path ? syscall(SYS_truncate, path, size) : syscall(SYS_ftruncate, fd, size))
        die("a recorded change of size failed");
    if (sync_each)
        synced(inode);
    pthread_mutex_unlock(&lock);
    return 0;
}

int ftruncate(int fd, off_t size) {
    uint64_t inode = inode_of(fd);
    return inode ? resize(fd, NULL, inode, size) : (int)syscall(SYS_ftruncate, fd, size);
}

int truncate(const char *path, off_t size) {
    char text[PATH_MAX];
    struct stat is;
    return below(AT_FDCWD, path, text) && stat(path, &is) == 0 ? resize(-1, path, is.st_ino, size) : (int)syscall(SYS_truncate, path, size);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    uint64_t inode = inode_of(fd);
    if (!inode)
        return (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (mode != 0)
        die("allocated in a way that is not modelled");
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_fallocate, fd, mode, offset, length); /* may be refused; then nothing has changed */
    if (result == 0)
        record(ALLOCATE, inode, (uint64_t)(offset + length), "", 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int posix_fallocate(int fd, off_t offset, off_t length) {
    return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

static int sync_any(int fd, long call) {
    uint64_t inode = inode_of(fd);
    if (!inode)
        return (int)syscall(call, fd);
    uint64_t id = (uint64_t)getpid() << 32 | atomic_fetch_add(&syncs, 1);
    pthread_mutex_lock(&lock); /* whatever is recorded before this has reached the kernel */
    record(SYNC_BEGIN, inode, id, "", 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    int result = (int)syscall(call, fd);
    if (result == 0)
        record(SYNC_END, inode, id, "", 0, NULL, 0);
    return result;
}

int fsync(int fd) {
    return sync_any(fd, SYS_fsync);
}

int fdatasync(int fd) {
    return sync_any(fd, SYS_fdatasync);
}

/* ---- the names that programs use for 64-bit offsets, which are the same functions here ---- */

_Static_assert(sizeof(off_t) == 8, "64-bit offsets");
#define ALSO(name, of) extern __typeof__(of) name __attribute__((alias(#of)))
ALSO(open64, open);
ALSO(openat64, openat);
ALSO(creat64, creat);
ALSO(pwrite64, pwrite);
ALSO(pwritev64, pwritev);
ALSO(pwritev64v2, pwritev2);
ALSO(ftruncate64, ftruncate);
ALSO(truncate64, truncate);
ALSO(fallocate64, fallocate);
ALSO(posix_fallocate64, posix_fallocate);
