/* The files themselves. They come from an archive in the format of tar (POSIX.1-1988, "ustar"): 512 bytes of header with
   the name and the size in octal digits, then the contents, padded to 512. */
#include "../include/abi.h"
#include "bytes.h"
#include "console.h"
#include "files.h"
#include "frames.h"

#define HEADER_BYTES 512
#define SIZE_OFFSET 124
#define SIZE_DIGITS 11

static struct file files[FILES];

static uint32_t octal(const uint8_t *digits, unsigned count)
{
    uint32_t value = 0;

    while (count--)
        value = value * 8 + (*digits++ - '0');
    return value;
}

static struct file *free_file(const char *name)
{
    if (text_bytes(name) >= FILE_NAME_BYTES)
        return 0;
    for (unsigned number = 0; number < FILES; number++) {
        struct file *file = &files[number];

        if (!file->name[0] && !file->users) {
            memset(file, 0, sizeof *file);
            memcpy(file->name, name, text_bytes(name));
            return file;
        }
    }
    return 0;
}

void archive_read(const uint8_t *archive, const uint8_t *end)
{
    while (archive < end && *archive) {
        struct file *file = free_file((const char *)archive);

        if (!file)
            panic("the archive has too many files or too long a name", EXIT_PANIC);
        file->bytes = octal(archive + SIZE_OFFSET, SIZE_DIGITS);
        file->archived = archive + HEADER_BYTES;
        archive += HEADER_BYTES + (file->bytes + HEADER_BYTES - 1) / HEADER_BYTES * HEADER_BYTES;
    }
}

struct file *file_named(const char *name)
{
    for (unsigned number = 0; number < FILES; number++)
        if (files[number].name[0] && same_text(files[number].name, name))
            return &files[number];
    return 0;
}

static void drop_pages(struct file *file)
{
    for (unsigned page = 0; page < FILE_PAGES; page++)
        if (file->pages[page]) {
            frame_release(file->pages[page]);
            file->pages[page] = 0;
        }
    file->bytes = 0;
}

struct file *file_create(const char *name)
{
    struct file *file = file_named(name);

    if (!file)
        return free_file(name);
    if (file->archived)
        return 0;
    drop_pages(file);
    return file;
}

uint32_t file_read(const struct file *file, uint32_t offset, void *to, uint32_t bytes)
{
    uint32_t done = 0;

    if (offset >= file->bytes)
        return 0;
    if (bytes > file->bytes - offset)
        bytes = file->bytes - offset;
    if (file->archived) {
        memcpy(to, file->archived + offset, bytes);
        return bytes;
    }
    while (done < bytes) {
        const uint32_t inside = (offset + done) % PAGE_BYTES;
        const uint32_t piece = bytes - done < PAGE_BYTES - inside ? bytes - done : PAGE_BYTES - inside;

        memcpy((uint8_t *)to + done, (uint8_t *)file->pages[(offset + done) / PAGE_BYTES] + inside, piece);
        done += piece;
    }
    return bytes;
}

/* The frame of one page of a file, which is made if it is not there; 0 if memory ran out. */
static uint32_t page_to_write(struct file *file, uint32_t page)
{
    if (!file->pages[page])
        file->pages[page] = frame_allocate_clear();
    return file->pages[page];
}

uint32_t file_write(struct file *file, uint32_t offset, const void *from, uint32_t bytes)
{
    uint32_t done = 0;

    while (done < bytes && offset + done < FILE_PAGES * PAGE_BYTES) {
        const uint32_t inside = (offset + done) % PAGE_BYTES;
        const uint32_t piece = bytes - done < PAGE_BYTES - inside ? bytes - done : PAGE_BYTES - inside;
        const uint32_t frame = page_to_write(file, (offset + done) / PAGE_BYTES);

        if (!frame)
            break;
        memcpy((uint8_t *)frame + inside, (const uint8_t *)from + done, piece);
        done += piece;
    }
    if (offset + done > file->bytes)
        file->bytes = offset + done;
    return done;
}

static void forget_if_unused(struct file *file)
{
    if (file->removed && !file->users) {
        drop_pages(file);
        file->removed = 0;
    }
}

void file_remove(struct file *file)
{
    file->name[0] = 0;
    file->removed = 1;
    forget_if_unused(file);
}

void file_release(struct file *file)
{
    file->users--;
    forget_if_unused(file);
}
