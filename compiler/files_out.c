/* files_out.c - files that appear complete or not at all, and scratch directories. */
#include "files_out.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver.h"

static bool complain(const char *verb, const char *path)
{
    fprintf(stderr, "mdlc: cannot %s %s: %s\n", verb, path, strerror(errno));
    return false;
}

static bool write_all(int fd, const char *bytes, size_t size)
{
    while (size) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

static bool write_through(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    bool ok = fd >= 0 && write_all(fd, bytes, size);
    int error = errno;
    if (fd >= 0 && close(fd) != 0 && ok)
        return complain("write", path);
    errno = error;
    return ok || complain("write", path);
}

static unsigned mode_for(const struct stat *old, unsigned mode)
{
    mode_t mask = umask(0);
    umask(mask);
    mode &= ~(unsigned)mask;
    return old ? ((unsigned)old->st_mode & 0777) | (mode & 0111) : mode;
}

/* temporary ends in XXXXXX; removed again on failure. */
static bool fill_and_rename(char *temporary, const char *path, const void *bytes, size_t size,
                            unsigned mode)
{
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return complain("write beside", path);
    bool ok = write_all(fd, bytes, size) && fchmod(fd, (mode_t)mode) == 0 && fsync(fd) == 0;
    int error = errno;
    if (close(fd) != 0 && ok) {
        error = errno;
        ok = false;
    }
    if (ok && rename(temporary, path) != 0) {
        error = errno;
        ok = false;
    }
    if (ok)
        return true;
    unlink(temporary);
    errno = error;
    return complain("write", path);
}

bool file_replace(const char *path, const void *bytes, size_t size, unsigned mode)
{
    struct stat st;
    bool there = stat(path, &st) == 0;
    if (there && S_ISDIR(st.st_mode)) {
        fprintf(stderr, "mdlc: %s is a directory; name a file for the output\n", path);
        return false;
    }
    if (there && !S_ISREG(st.st_mode))
        return write_through(path, bytes, size);
    if (there && access(path, W_OK) != 0)
        return complain("write", path);
    char *real = there ? realpath(path, NULL) : strdup(path);
    if (!real)
        return complain("write", path);
    size_t length = strlen(real);
    char *temporary = malloc(length + sizeof ".XXXXXX");
    bool ok = false;
    if (temporary) {
        memcpy(temporary, real, length);
        memcpy(temporary + length, ".XXXXXX", sizeof ".XXXXXX");
        ok = fill_and_rename(temporary, real, bytes, size, mode_for(there ? &st : NULL, mode));
    } else {
        complain("write", path);
    }
    free(temporary);
    free(real);
    return ok;
}

bool build_replace_file(const char *path, const char *text)
{
    return file_replace(path, text, strlen(text), 0666);
}

const char *folder_above(Arena *a, const char *file)
{
    char *self = realpath(file, NULL);
    if (!self)
        return NULL;
    char *folder = arena_strndup(a, self, strlen(self));
    free(self);
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(folder, '/');
        if (!slash)
            return NULL;
        *slash = '\0';
    }
    return folder;
}

char *file_read(Arena *a, const char *path, size_t limit, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    Text t = {.arena = a};
    text_add(&t, "");
    char block[65536];
    int error = 0;
    while (t.n < limit) {
        ssize_t n = read(fd, block, limit - t.n < sizeof block ? limit - t.n : sizeof block);
        if (n < 0 && errno == EINTR)
            continue;
        error = n < 0 ? errno : 0;
        if (n <= 0)
            break;
        text_add_n(&t, block, (size_t)n);
    }
    close(fd);
    if (size)
        *size = t.n;
    errno = error;
    return error ? NULL : t.at;
}

bool file_replace_by_copy(Arena *a, const char *path, const char *from, unsigned mode)
{
    size_t size;
    char *bytes = file_read(a, from, SIZE_MAX, &size);
    if (!bytes)
        return complain("read", from);
    return file_replace(path, bytes, size, mode);
}

static bool is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool directory_make(Arena *a, const char *path, unsigned mode)
{
    size_t length = strlen(path);
    for (size_t n = 1; n <= length; n++) {
        if (n < length && path[n] != '/')
            continue;
        const char *part = arena_strndup(a, path, n);
        int error = mkdir(part, (mode_t)mode) == 0 ? 0 : errno;
        if (error == 0 || is_directory(part))
            continue;
        errno = error;
        if (error != EEXIST)
            return complain("make the directory", part);
        fprintf(stderr, "mdlc: %s is not a directory\n", part);
        return false;
    }
    return true;
}

const char *scratch_make(Arena *a)
{
    const char *under = getenv("TMPDIR");
    if (!under || !under[0])
        under = "/tmp";
    char *real = realpath(under, NULL); /* the compiler is given no relative names */
    char *dir = arena_printf(a, "%s/mdlc-XXXXXX", real ? real : under);
    free(real);
    if (mkdtemp(dir))
        return dir;
    fprintf(stderr, "mdlc: cannot make a temporary directory in %s: %s; set TMPDIR to another\n",
            under, strerror(errno));
    return NULL;
}

void scratch_remove(Arena *a, const char *dir)
{
    DIR *d = dir ? opendir(dir) : NULL;
    if (!d)
        return;
    VEC(const char *) names = {0};
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            VEC_PUSH(a, &names, arena_printf(a, "%s/%s", dir, e->d_name));
    closedir(d);
    for (int i = 0; i < names.n; i++)
        unlink(names.at[i]);
    if (rmdir(dir) != 0)
        complain("remove", dir);
}
