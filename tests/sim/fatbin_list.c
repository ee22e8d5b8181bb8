/* fatbin_list.c - which architectures an executable's kernels are built for.
 *
 *     fatbin_list PROGRAM      →      sass sm_80 SIZE
 *                                     ptx compute_80 SIZE
 *
 * One line for each image in the ELF section .nv_fatbin, which holds fat binaries one after
 * another, each at a multiple of 8 bytes. Exit code 1 and a line where the file is not a
 * 64-bit ELF file, has no such section, or an image does not fit into it.
 */
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fatbin.h"

typedef struct {
    const char *data;
    uint64_t size;
} Bytes;

static int fail(const char *path, const char *why)
{
    fprintf(stderr, "fatbin_list: %s: %s\n", path, why);
    return 1;
}

/* A part of the file; empty when it is not all in it. */
static Bytes part(Bytes file, uint64_t offset, uint64_t size)
{
    if (offset > file.size || size > file.size - offset)
        return (Bytes){NULL, 0};
    return (Bytes){file.data + offset, size};
}

static bool section_header(Bytes file, const Elf64_Ehdr *elf, uint64_t i, Elf64_Shdr *header)
{
    const Bytes at = part(file, elf->e_shoff, i * sizeof *header + sizeof *header);
    if (!at.data)
        return false;
    memcpy(header, at.data + i * sizeof *header, sizeof *header);
    return true;
}

static Bytes find_section(Bytes file, const char *name)
{
    const Bytes none = {NULL, 0};
    Elf64_Ehdr elf;
    Elf64_Shdr names, header;
    if (file.size < sizeof elf)
        return none;
    memcpy(&elf, file.data, sizeof elf);
    if (memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0 || elf.e_ident[EI_CLASS] != ELFCLASS64 ||
        elf.e_shentsize != sizeof header || !section_header(file, &elf, elf.e_shstrndx, &names))
        return none;
    for (uint64_t i = 0; i < elf.e_shnum; i++) {
        if (!section_header(file, &elf, i, &header))
            return none;
        const Bytes text = part(file, names.sh_offset, names.sh_size);
        const uint64_t n = strlen(name) + 1;
        if (text.data && header.sh_name <= text.size && text.size - header.sh_name >= n &&
            memcmp(text.data + header.sh_name, name, n) == 0)
            return part(file, header.sh_offset, header.sh_size);
    }
    return none;
}

static int list_images(const char *path, Bytes section)
{
    uint64_t at = 0;
    while (section.size - at >= 8) {
        Fatbin fatbin;
        FatbinImage image;
        int found;
        if (!fatbin_open(&fatbin, section.data + at, section.size - at)) {
            uint64_t padding;
            memcpy(&padding, section.data + at, sizeof padding);
            if (padding != 0)
                return fail(path, "something in .nv_fatbin is no fat binary");
            at += 8;
            continue;
        }
        while ((found = fatbin_next(&fatbin, &image)) == 1)
            printf("%s_%u %llu\n",
                   image.kind == FATBIN_PTX    ? "ptx compute"
                   : image.kind == FATBIN_SASS ? "sass sm"
                                               : "other arch",
                   image.architecture, (unsigned long long)image.size);
        if (found < 0)
            return fail(path, "an image does not fit into its fat binary");
        at += (fatbin.size + 7) / 8 * 8;
        if (at > section.size)
            break;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return fail("PROGRAM", "one path is expected");
    const char *path = argv[1];
    struct stat status;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0 || status.st_size <= 0)
        return fail(path, "cannot be read");
    const size_t size = (size_t)status.st_size;
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED)
        return fail(path, "cannot be read");
    const Bytes section = find_section((Bytes){data, size}, ".nv_fatbin");
    const int code = section.data ? list_images(path, section)
                                  : fail(path, "no 64-bit ELF file with kernels of nvcc's");
    munmap(data, size);
    return code;
}
