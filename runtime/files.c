/* files.c - problems, mapped files and files that appear complete or not at all. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rt.h"

int problem_set(Problem *p, int exit_code, const char *format, ...)
{
    if (p->exit_code != 0)
        return MDL_FAILED;
    p->exit_code = exit_code;
    va_list args;
    va_start(args, format);
    vsnprintf(p->text, sizeof p->text, format, args);
    va_end(args);
    return MDL_FAILED;
}

int problem_no_memory(Problem *p, const char *what)
{
    return problem_set(p, EXIT_RUN, "out of memory for %s", what);
}

char *text_printable(char *out, size_t size, const char *text, size_t length)
{
    size_t n = length < size ? length : size - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    if (n < length && n >= 3)
        memcpy(out + n - 3, "...", 3);
    out[n] = '\0';
    return out;
}

char *text_number(char *out, int64_t value)
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%" PRId64, value);
    int first = digits[0] == '-', k = 0;
    for (int i = 0; i < n; i++) {
        if (i > first && (n - i) % 3 == 0)
            out[k++] = ',';
        out[k++] = digits[i];
    }
    out[k] = '\0';
    return out;
}

char *text_shape(char *out, const int64_t *dim, int rank)
{
    int k = snprintf(out, TEXT_SHAPE, "[");
    for (int i = 0; i < rank && k < TEXT_SHAPE - 24; i++)
        k += snprintf(out + k, (size_t)(TEXT_SHAPE - k), "%s%" PRId64, i ? "," : "", dim[i]);
    snprintf(out + k, (size_t)(TEXT_SHAPE - k), "]");
    return out;
}

bool size_product(int64_t *out, const int64_t *dim, int rank)
{
    int64_t n = 1;
    bool zero = false;
    for (int i = 0; i < rank; i++) {
        if (dim[i] < 0)
            return false;
        zero |= dim[i] == 0;
        if (dim[i] != 0 && __builtin_mul_overflow(n, dim[i], &n))
            return false;
    }
    *out = zero ? 0 : n;
    return true;
}

int file_map(FileBytes *file, const char *path, Problem *p)
{
    *file = (FileBytes){NULL, 0};
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe must not keep us here */
    if (fd < 0)
        return problem_set(p, EXIT_USE, "%s: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return problem_set(p, EXIT_USE, "%s: not a regular file", path);
    }
    if (st.st_size > 0) {
        void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (at == MAP_FAILED) {
            int why = errno;
            close(fd);
            return problem_set(p, EXIT_RUN, "%s: cannot be mapped: %s", path, strerror(why));
        }
        *file = (FileBytes){at, (size_t)st.st_size};
    }
    close(fd);
    return MDL_OK;
}

void file_release(FileBytes *file)
{
    if (file->bytes)
        munmap((void *)(uintptr_t)file->bytes, file->size);
    *file = (FileBytes){NULL, 0};
}

bool file_write_all(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO;
        if (n <= 0)
            return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

/* The folder that `path` is in, to be freed; NULL when memory runs out. */
static char *path_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

int file_replace_begin(FileReplace *r, const char *path, Problem *p)
{
    size_t size = strlen(path) + sizeof ".tmp";
    *r = (FileReplace){-1, strdup(path), malloc(size)};
    if (!r->path || !r->temporary) {
        free(r->path);
        free(r->temporary);
        return problem_no_memory(p, path);
    }
    snprintf(r->temporary, size, "%s.tmp", path);
    r->fd = open(r->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (r->fd < 0) {
        problem_set(p, EXIT_RUN, "%s: cannot be written: %s", r->temporary, strerror(errno));
        free(r->path);
        free(r->temporary);
        return MDL_FAILED;
    }
    return MDL_OK;
}

/* A rename survives a power failure only once the folder itself is on the disk. */
static bool folder_sync(const char *path)
{
    char *folder = path_folder(path);
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    free(folder);
    if (fd < 0)
        return false;
    /* Some file systems cannot sync a folder and say EINVAL: nothing more can be done. */
    bool ok = fsync(fd) == 0 || errno == EINVAL;
    close(fd);
    return ok;
}

int file_replace_end(FileReplace *r, bool keep, Problem *p)
{
    int status = keep ? MDL_OK : MDL_FAILED;
    const char *failed = NULL;
    if (keep && fsync(r->fd) != 0)
        failed = "fsync";
    int why = errno;
    if (close(r->fd) != 0 && keep && !failed) {
        failed = "close";
        why = errno;
    }
    if (keep && !failed && rename(r->temporary, r->path) != 0) {
        failed = "rename";
        why = errno;
    }
    if (!keep || failed)
        unlink(r->temporary);
    if (keep && !failed && !folder_sync(r->path)) {
        failed = "fsync of the folder";
        why = errno;
    }
    if (failed)
        status = problem_set(p, EXIT_RUN, "%s: %s: %s", r->path, failed, strerror(why));
    free(r->path);
    free(r->temporary);
    return status;
}

int file_check_target(const char *option, const char *path, bool replaced, Problem *p)
{
    struct stat st;
    bool there = stat(path, &st) == 0;
    if (there && S_ISDIR(st.st_mode))
        return problem_set(p, EXIT_USE, "%s %s: is a directory; a file is wanted", option, path);
    if (there && replaced && !S_ISREG(st.st_mode))
        return problem_set(p, EXIT_USE, "%s %s: is no regular file, and would be replaced by one",
                           option, path);
    if (there && !replaced)
        return access(path, W_OK) == 0
                   ? MDL_OK
                   : problem_set(p, EXIT_USE, "%s %s: %s", option, path, strerror(errno));
    char *folder = path_folder(path);
    if (!folder)
        return problem_no_memory(p, path);
    int status = MDL_OK;
    if (access(folder, W_OK | X_OK) != 0)
        status = problem_set(p, EXIT_USE, "%s %s: cannot write in '%s': %s", option, path, folder,
                             strerror(errno));
    free(folder);
    return status;
}
