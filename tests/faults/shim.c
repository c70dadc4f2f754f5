/* Counts the calls that a process makes to files below a folder, and at the n-th of them fails or kills the process.

   cc -shared -fPIC -O1 -o shim.so shim.c -ldl; loaded with LD_PRELOAD, armed from Python with ctypes (tests/faults/shim.py)
   or by the environment: FAULT="folder|part of the path|n|mode|errno". Reads are told apart from writes: a call that only
   reads counts where `reads` is set, and fails with nothing but EIO. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { COUNT, KILL, TEAR, ONCE, ONWARD };
static char folder[PATH_MAX], part[256];
static long at, mode, number, count, reads;

void fault_arm(const char *f, const char *p, long n, long m, long e, long r) {
  snprintf(folder, sizeof folder, "%s", f);
  snprintf(part, sizeof part, "%s", p);
  at = n; mode = m; number = e; reads = r; count = 0;
}
long fault_count(void) { return count; }

__attribute__((constructor)) static void from_environment(void) {
  const char *given = getenv("FAULT");
  char f[PATH_MAX], p[256];
  long n, m, e;
  if (given && sscanf(given, "%4095[^|]|%255[^|]|%ld|%ld|%ld", f, p, &n, &m, &e) == 5)
    fault_arm(f, strcmp(p, "*") ? p : "", n, m, e, 0);
}

static const char *of_descriptor(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0) return "";
  path[length] = 0;
  return path;
}
static const char *absolute(int dir, const char *name, char *path) {
  char base[PATH_MAX];
  if (!name) return "";
  if (name[0] == '/') return name;
  if (dir == AT_FDCWD) { if (!getcwd(base, sizeof base)) return ""; }
  else if (!*of_descriptor(dir, base)) return "";
  snprintf(path, PATH_MAX, "%s/%s", base, name);
  return path;
}
static void die(void) { syscall(SYS_kill, getpid(), SIGKILL); for (;;) pause(); }

/* 0: let the call through; TEAR: let it through (or half of it), then die; -1: fail with errno. */
static int fault(const char *path, int only_reads) {
  if (!folder[0] || strncmp(path, folder, strlen(folder)) || !strstr(path, part)) return 0;
  if (only_reads && !reads) return 0;
  if (only_reads && number != EIO && mode >= ONCE) return 0;
  long now = __sync_add_and_fetch(&count, 1);
  if (mode == COUNT || (mode == ONWARD ? now < at : now != at)) return 0;
  if (mode == KILL) die();
  if (mode == TEAR) return TEAR;
  errno = (int)number;
  return -1;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define CALL(result, path, only_reads, bad, call) \
  int what = fault(path, only_reads); \
  if (what < 0) return bad; \
  result = call; \
  if (what == TEAR) die(); \
  return outcome
#define BY_DESCRIPTOR(type, name, parameters, fd, only_reads, call) \
  type name parameters { REAL(name); char path[PATH_MAX]; CALL(type outcome, folder[0] ? of_descriptor(fd, path) : "", only_reads, -1, call); }
#define BY_NAME(name, parameters, dir, file, call) \
  int name parameters { REAL(name); char path[PATH_MAX]; CALL(int outcome, folder[0] ? absolute(dir, file, path) : "", 0, -1, call); }

ssize_t write(int fd, const void *data, size_t size) {
  REAL(write);
  char path[PATH_MAX];
  int what = folder[0] && fd > 2 ? fault(of_descriptor(fd, path), 0) : 0;
  if (what < 0) return -1;
  if (what == TEAR) { if (size > 1) real(fd, data, size / 2); die(); }
  return real(fd, data, size);
}
BY_DESCRIPTOR(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), fd, 0, real(fd, b, n, o))
BY_DESCRIPTOR(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), fd, 0, real(fd, b, n, o))
BY_DESCRIPTOR(ssize_t, read, (int fd, void *b, size_t n), fd, 1, real(fd, b, n))
BY_DESCRIPTOR(ssize_t, pread64, (int fd, void *b, size_t n, off64_t o), fd, 1, real(fd, b, n, o))
BY_DESCRIPTOR(int, fsync, (int fd), fd, 0, real(fd))
BY_DESCRIPTOR(int, fdatasync, (int fd), fd, 0, real(fd))
BY_DESCRIPTOR(int, ftruncate, (int fd, off_t n), fd, 0, real(fd, n))
BY_DESCRIPTOR(int, ftruncate64, (int fd, off64_t n), fd, 0, real(fd, n))
BY_NAME(truncate, (const char *a, off_t n), AT_FDCWD, a, real(a, n))
BY_NAME(truncate64, (const char *a, off64_t n), AT_FDCWD, a, real(a, n))
BY_NAME(rename, (const char *a, const char *b), AT_FDCWD, b, real(a, b))
BY_NAME(renameat, (int c, const char *a, int d, const char *b), d, b, real(c, a, d, b))
BY_NAME(unlink, (const char *a), AT_FDCWD, a, real(a))
BY_NAME(unlinkat, (int d, const char *a, int f), d, a, real(d, a, f))
BY_NAME(rmdir, (const char *a), AT_FDCWD, a, real(a))
BY_NAME(mkdir, (const char *a, mode_t m), AT_FDCWD, a, real(a, m))
BY_NAME(mkdirat, (int d, const char *a, mode_t m), d, a, real(d, a, m))
BY_NAME(symlink, (const char *t, const char *a), AT_FDCWD, a, real(t, a))
BY_NAME(symlinkat, (const char *t, int d, const char *a), d, a, real(t, d, a))

DIR *opendir(const char *name) {
  REAL(opendir);
  char path[PATH_MAX];
  CALL(DIR *outcome, folder[0] ? absolute(AT_FDCWD, name, path) : "", 1, NULL, real(name));
}

#define OPEN(name, dir, parameters, call) \
  int name parameters { \
    mode_t rights = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); rights = va_arg(more, mode_t); va_end(more); } \
    int only_reads = !(flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC)); \
    REAL(name); char path[PATH_MAX]; \
    CALL(int outcome, folder[0] ? absolute(dir, file, path) : "", only_reads, -1, call); \
  }
OPEN(open, AT_FDCWD, (const char *file, int flags, ...), real(file, flags, rights))
OPEN(open64, AT_FDCWD, (const char *file, int flags, ...), real(file, flags, rights))
OPEN(openat, dir, (int dir, const char *file, int flags, ...), real(dir, file, flags, rights))
OPEN(openat64, dir, (int dir, const char *file, int flags, ...), real(dir, file, flags, rights))
