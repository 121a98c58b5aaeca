// A disk that fails, for tests: preloaded into a program, it lets chosen writes of that program fail.
//
// Owns nothing but a count of the calls that write below one directory, over all threads. Never touches another file.
// Preloaded rather than injected by a tracer: that counts for each thread alone, and must know every file's name.
//
//   HOSTLER_DISK_UNDER   the directory (as the kernel names it: no symbolic links)
//   HOSTLER_DISK_AT      the first call that fails, from 1
//   HOSTLER_DISK_LASTS   how many calls fail from there on
//   HOSTLER_DISK_ERRNO   with which error number
//   HOSTLER_DISK_HIT     where the first failure is written down: nothing there, nothing failed
//
// A write that fails has written the first half of its bytes, as a full disk and a dying one do.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;

static long number(const char *name) {
  const char *text = getenv(name);
  return text ? atol(text) : 0;
}

static int is_below(int fd) {
  const char *under = getenv("HOSTLER_DISK_UNDER");
  char link[64], path[PATH_MAX];
  if (!under) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = '\0';
  return strncmp(path, under, strlen(under)) == 0;
}

static void tell(const char *call, int fd, long at) {
  const char *hit = getenv("HOSTLER_DISK_HIT");
  if (!hit) return;
  int file = open(hit, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return;
  char link[64], path[PATH_MAX] = "";
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  if (readlink(link, path, sizeof path - 1) < 0) path[0] = '\0';
  dprintf(file, "%s %s (call %ld)\n", call, path, at);
  close(file);
}

// Whether this call is one of those that fail.
static int fails(const char *call, int fd) {
  long first = number("HOSTLER_DISK_AT");
  if (first == 0 || !is_below(fd)) return 0;
  long at = atomic_fetch_add(&calls, 1) + 1;
  if (at < first || at - first >= number("HOSTLER_DISK_LASTS")) return 0;
  tell(call, fd, at);
  return 1;
}

static int refuse(void) {
  errno = (int)number("HOSTLER_DISK_ERRNO");
  return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t count) {
  if (!fails("write", fd)) return REAL(write)(fd, bytes, count);
  if (count > 1) (void)!REAL(write)(fd, bytes, count / 2);
  return refuse();
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  if (!fails("pwrite", fd)) return REAL(pwrite)(fd, bytes, count, at);
  if (count > 1) (void)!REAL(pwrite)(fd, bytes, count / 2, at);
  return refuse();
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  if (!fails("pwrite", fd)) return REAL(pwrite64)(fd, bytes, count, at);
  if (count > 1) (void)!REAL(pwrite64)(fd, bytes, count / 2, at);
  return refuse();
}

int fsync(int fd) { return fails("fsync", fd) ? refuse() : REAL(fsync)(fd); }

int fdatasync(int fd) { return fails("fdatasync", fd) ? refuse() : REAL(fdatasync)(fd); }

int ftruncate(int fd, off_t length) { return fails("ftruncate", fd) ? refuse() : REAL(ftruncate)(fd, length); }

int ftruncate64(int fd, off64_t length) { return fails("ftruncate", fd) ? refuse() : REAL(ftruncate64)(fd, length); }
