/* workshop.c - a folder, files and captured runs for the tests. */
#include "workshop.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *run_out, *run_err;
static char folder[64];

int workshop_open(void **state)
{
    (void)state;
    strcpy(folder, "workshop-XXXXXX");
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int entry_remove(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

int workshop_close(void **state)
{
    (void)state;
    free(run_out);
    free(run_err);
    run_out = run_err = NULL;
    return chdir("..") == 0 ? nftw(folder, entry_remove, 16, FTW_DEPTH | FTW_PHYS) : -1;
}

void file_put(const char *path, const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

char *file_get(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    char *bytes = malloc(*size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size, f), *size);
    bytes[*size] = '\0';
    fclose(f);
    return bytes;
}

void files_assert_equal(const char *a, const char *b)
{
    size_t n, k;
    char *x = file_get(a, &n), *y = file_get(b, &k);
    assert_int_equal(n, k);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

void npy_put(const char *path, const char *descr, const char *shape, const void *data, size_t bytes)
{
    char header[128];
    int n = snprintf(header, sizeof header,
                     "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n", descr, shape);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite("\x93NUMPY\1\0", 1, 8, f);
    fputc(n, f);
    fputc(0, f);
    fwrite(header, 1, (size_t)n, f);
    fwrite(data, 1, bytes, f);
    assert_int_equal(fclose(f), 0);
}

static int redirect(int fd, const char *path)
{
    int old = dup(fd), to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(old >= 0 && to >= 0 && dup2(to, fd) == fd);
    close(to);
    return old;
}

static void restore(int fd, int old)
{
    dup2(old, fd);
    close(old);
}

int run(const MdlModel *model, const char *line)
{
    char *words = strdup(line), *argv[64] = {"trainer"}, *rest = words;
    int argc = 1;
    for (char *word; (word = strtok_r(rest, " ", &rest)) != NULL && argc < 63;)
        argv[argc++] = word;
    fflush(stdout);
    fflush(stderr);
    int out = redirect(1, "run.out"), err = redirect(2, "run.err");
    int code = mdl_main(model, argc, argv);
    fflush(stdout);
    fflush(stderr);
    restore(1, out);
    restore(2, err);
    free(words);
    free(run_out);
    free(run_err);
    size_t n;
    run_out = file_get("run.out", &n);
    run_err = file_get("run.err", &n);
    return code;
}
