/*
 * Lets calls of the system fail in a process that runs already.
 *
 * Preloaded. ANOMALY_PLAN names a file that the test and the process share: which call of which kind
 * fails in which process, counted from the moment on at which the test writes the process's id.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* In the order of `Kind` in anomaly.py. */
enum kind { THREAD = 1, DESCRIPTOR, WATCH, MAP, DISK, CONNECT, SEND, RECEIVE, WAIT, FORK };

/* As `Plan` in anomaly.py has it. */
struct plan {
    atomic_uint pid;    /* Of the process whose calls fail; 0: nobody's. */
    uint32_t kind;
    int32_t error;      /* 0: half of what is written. */
    uint32_t of_engine; /* Only calls of the engine count. */
    uint32_t nth;
    uint32_t ms;        /* 0: that call alone. */
    atomic_uint calls;
    atomic_uint failed;
    _Atomic uint64_t until;
};

static struct plan *plan;

/* What watches a socket: a socket that has taken half is full, and is reported once it has room. */
#define MOST_FDS 4096
static struct watch {
    atomic_int epoll;   /* 0: none. */
    struct epoll_event event;
} watches[MOST_FDS];
static atomic_uintptr_t engine_begin, engine_end;

static uint64_t now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static int note_engine(struct dl_phdr_info *info, size_t size, void *unused)
{
    if (!strstr(info->dlpi_name, "/_core."))
        return 0;
    uintptr_t end = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t segment = info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && segment > end)
            end = segment;
    }
    atomic_store(&engine_begin, info->dlpi_addr);
    atomic_store(&engine_end, info->dlpi_addr + end);
    return 1;
}

static int is_of_engine(void *caller)
{
    if (!atomic_load(&engine_end))
        dl_iterate_phdr(note_engine, NULL);
    uintptr_t at = (uintptr_t)caller;
    return at >= atomic_load(&engine_begin) && at < atomic_load(&engine_end);
}

/* Whether a call fails; `errno` is set then, and 0 for half of what is written. */
static int fails(enum kind kind, void *caller)
{
    if (!plan || !atomic_load(&plan->pid) || plan->kind != kind)
        return 0;
    int before = errno;
    if (atomic_load(&plan->pid) != (unsigned)getpid() || (plan->of_engine && !is_of_engine(caller)))
        return 0;
    unsigned n = atomic_fetch_add(&plan->calls, 1) + 1;
    if (n == plan->nth)
        atomic_store(&plan->until, now() + plan->ms * UINT64_C(1000000));
    else if (n < plan->nth || !plan->ms || now() > atomic_load(&plan->until)) {
        errno = before;
        return 0;
    }
    atomic_fetch_add(&plan->failed, 1);
    errno = plan->error;
    return 1;
}

static mode_t type_of(int fd)
{
    int before = errno;
    struct stat found;
    mode_t type = fstat(fd, &found) ? 0 : found.st_mode & S_IFMT;
    errno = before;
    return type;
}

/* A connection that was reset is at its end in later calls, too. */
static ssize_t failed_at(int fd)
{
    int error = errno;
    if (error == ECONNRESET)
        shutdown(fd, SHUT_RDWR);
    errno = error;
    return -1;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("ANOMALY_PLAN");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *found = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED)
        plan = found;
}

#define CALLER __builtin_return_address(0)
/* Declares `real`, the function that a wrapper of the same name hides. */
#define REAL(name)                                        \
    static __typeof__(&name) real;                        \
    if (!real)                                            \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
/* A function all of whose calls are of one kind. */
#define WRAP(kind, returned, failure, name, parameters, arguments) \
    returned name parameters                                       \
    {                                                              \
        REAL(name);                                                \
        return fails(kind, CALLER) ? (failure) : real arguments;   \
    }
#define DESCRIBE(name, parameters, arguments) WRAP(DESCRIPTOR, int, -1, name, parameters, arguments)

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    REAL(pthread_create);
    return fails(THREAD, CALLER) ? plan->error : real(thread, attr, run, arg);
}

DESCRIBE(socket, (int domain, int type, int protocol), (domain, type, protocol))
DESCRIBE(socketpair, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds))
DESCRIBE(accept, (int fd, struct sockaddr *address, socklen_t *size), (fd, address, size))
DESCRIBE(accept4, (int fd, struct sockaddr *address, socklen_t *size, int flags),
         (fd, address, size, flags))
DESCRIBE(dup, (int fd), (fd))
DESCRIBE(eventfd, (unsigned initial, int flags), (initial, flags))
DESCRIBE(epoll_create, (int size), (size))
DESCRIBE(epoll_create1, (int flags), (flags))
DESCRIBE(pipe, (int fds[2]), (fds))
DESCRIBE(pipe2, (int fds[2], int flags), (fds, flags))
WRAP(DESCRIPTOR, void *, NULL, opendir, (const char *path), (path))

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...)                              \
    {                                                                       \
        REAL(name);                                                         \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                       \
        return fails(DESCRIPTOR, CALLER) ? -1 : real(path, flags, mode);    \
    }
#define OPENAT(name)                                                        \
    int name(int folder, const char *path, int flags, ...)                  \
    {                                                                       \
        REAL(name);                                                         \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                       \
        return fails(DESCRIPTOR, CALLER) ? -1 : real(folder, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

#define FCNTL(name)                                                         \
    int name(int fd, int command, ...)                                      \
    {                                                                       \
        REAL(name);                                                         \
        va_list rest;                                                       \
        va_start(rest, command);                                            \
        void *argument = va_arg(rest, void *);                              \
        va_end(rest);                                                       \
        int is_dup = command == F_DUPFD || command == F_DUPFD_CLOEXEC;      \
        return is_dup && fails(DESCRIPTOR, CALLER) ? -1 : real(fd, command, argument); \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    REAL(epoll_ctl);
    int is_new = operation == EPOLL_CTL_ADD;
    if (is_new && fails(WATCH, CALLER))
        return -1;
    if (plan && fd >= 0 && fd < MOST_FDS) {
        if (event)
            watches[fd].event = *event;
        atomic_store(&watches[fd].epoll, operation == EPOLL_CTL_DEL ? 0 : epoll);
    }
    return real(epoll, operation, fd, event);
}

/* Has the room of a socket reported, as if it had been full: `taken` is what it took. */
static ssize_t report_room(int fd, ssize_t taken)
{
    int epoll = fd < MOST_FDS ? atomic_load(&watches[fd].epoll) : 0;
    int before = errno;
    if (taken > 0 && epoll && type_of(fd) == S_IFSOCK)
        epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &watches[fd].event);
    errno = before;
    return taken;
}

WRAP(MAP, void *, MAP_FAILED, mmap,
     (void *at, size_t size, int protection, int flags, int fd, off_t offset),
     (at, size, protection, flags, fd, offset))
WRAP(MAP, void *, MAP_FAILED, mmap64,
     (void *at, size_t size, int protection, int flags, int fd, off64_t offset),
     (at, size, protection, flags, fd, offset))

WRAP(DISK, int, -1, fsync, (int fd), (fd))
WRAP(DISK, int, -1, fdatasync, (int fd), (fd))
WRAP(DISK, int, -1, ftruncate, (int fd, off_t size), (fd, size))
WRAP(DISK, int, -1, ftruncate64, (int fd, off64_t size), (fd, size))
WRAP(DISK, int, -1, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
WRAP(DISK, int, -1, fallocate64, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size))
WRAP(DISK, int, -1, posix_fallocate, (int fd, off_t at, off_t size), (fd, at, size))
WRAP(DISK, int, -1, posix_fallocate64, (int fd, off64_t at, off64_t size), (fd, at, size))

WRAP(WAIT, int, -1, epoll_wait, (int epoll, struct epoll_event *events, int size, int ms),
     (epoll, events, size, ms))
WRAP(WAIT, int, -1, epoll_pwait,
     (int epoll, struct epoll_event *events, int size, int ms, const sigset_t *mask),
     (epoll, events, size, ms, mask))
WRAP(WAIT, int, -1, poll, (struct pollfd *fds, nfds_t count, int ms), (fds, count, ms))

WRAP(FORK, pid_t, -1, fork, (void), ())
/* Not vfork: the child would return into a frame that is gone. */

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    REAL(connect);
    return fails(CONNECT, CALLER) ? -1 : real(fd, address, size);
}

/* Whether the other end is in the process that made this one: nothing but memory is between them. */
static int is_own_pair(int fd)
{
    int before = errno;
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    int is_own = !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) && peer.pid == getpid();
    errno = before;
    return is_own;
}

/* The kind of reading or writing a descriptor; 0: none that fails. The output is left alone. */
static enum kind kind_of(int fd, enum kind at_socket)
{
    if (!plan || !atomic_load(&plan->pid) || (plan->kind != at_socket && plan->kind != DISK))
        return 0;
    mode_t type = type_of(fd);
    if (type == S_IFSOCK)
        return is_own_pair(fd) ? 0 : at_socket;
    return type == S_IFREG && fd > 2 && at_socket == SEND ? DISK : 0;
}

static size_t half(size_t size)
{
    return size > 1 ? size / 2 : size;
}

#define OUT(name, parameters, whole, part)                \
    ssize_t name parameters                               \
    {                                                     \
        REAL(name);                                       \
        enum kind kind = kind_of(fd, SEND);               \
        if (!kind || !fails(kind, CALLER))                \
            return whole;                                 \
        return plan->error ? failed_at(fd) : report_room(fd, part); \
    }
#define IN(name, parameters, whole)                                       \
    ssize_t name parameters                                               \
    {                                                                     \
        REAL(name);                                                       \
        enum kind kind = kind_of(fd, RECEIVE);                            \
        return kind == RECEIVE && fails(kind, CALLER) ? failed_at(fd) : whole; \
    }
OUT(write, (int fd, const void *data, size_t size), real(fd, data, size), real(fd, data, half(size)))
OUT(pwrite, (int fd, const void *data, size_t size, off_t at), real(fd, data, size, at),
    real(fd, data, half(size), at))
OUT(pwrite64, (int fd, const void *data, size_t size, off64_t at), real(fd, data, size, at),
    real(fd, data, half(size), at))
OUT(send, (int fd, const void *data, size_t size, int flags), real(fd, data, size, flags),
    real(fd, data, half(size), flags))
OUT(sendto,
    (int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length),
    real(fd, data, size, flags, to, length), real(fd, data, half(size), flags, to, length))
OUT(writev, (int fd, const struct iovec *parts, int count), real(fd, parts, count),
    syscall(SYS_write, fd, parts->iov_base, half(parts->iov_len)))
OUT(sendmsg, (int fd, const struct msghdr *message, int flags), real(fd, message, flags),
    syscall(SYS_sendto, fd, message->msg_iov->iov_base, half(message->msg_iov->iov_len), flags, NULL, 0))

IN(read, (int fd, void *data, size_t size), real(fd, data, size))
IN(readv, (int fd, const struct iovec *parts, int count), real(fd, parts, count))
IN(recv, (int fd, void *data, size_t size, int flags), real(fd, data, size, flags))
IN(recvmsg, (int fd, struct msghdr *message, int flags), real(fd, message, flags))
IN(recvfrom,
   (int fd, void *data, size_t size, int flags, struct sockaddr *from, socklen_t *length),
   real(fd, data, size, flags, from, length))
