/* What is open, and the calls on it. Programs that fork share their open files, and so the offset. */
#include "files.h"

#include "../include/abi.h"
#include "../include/machine.h"
#include "bytes.h"
#include "pipe.h"
#include "process.h"

static struct open_file open_files[OPEN_FILES];

struct open_file *open_file_new(enum open_kind kind)
{
    for (unsigned number = 0; number < OPEN_FILES; number++)
        if (!open_files[number].users) {
            memset(&open_files[number], 0, sizeof open_files[number]);
            open_files[number].users = 1;
            open_files[number].kind = kind;
            return &open_files[number];
        }
    return 0;
}

void open_file_share(struct open_file *open)
{
    open->users++;
}

static void open_file_release(struct open_file *open)
{
    if (--open->users)
        return;
    if (open->file)
        file_release(open->file);
    if (open->pipe)
        pipe_leave(open->pipe, open->kind);
}

void console_open(struct process *process)
{
    struct open_file *open = open_file_new(OPEN_CONSOLE);

    open->users = 3;
    for (unsigned number = 0; number < 3; number++)
        process->descriptors[number] = open;
}

int descriptor_for(struct open_file *open)
{
    for (int number = 0; number < DESCRIPTORS_OF_PROCESS; number++)
        if (!current->descriptors[number]) {
            current->descriptors[number] = open;
            return number;
        }
    return ERROR_TOO_MANY;
}

static struct open_file *opened(uint32_t descriptor)
{
    return descriptor < DESCRIPTORS_OF_PROCESS ? current->descriptors[descriptor] : 0;
}

/* OPEN_ZERO or OPEN_NULL for the name of a device, else OPEN_FILE. */
static enum open_kind kind_named(const char *name)
{
    if (same_text(name, "zero"))
        return OPEN_ZERO;
    return same_text(name, "null") ? OPEN_NULL : OPEN_FILE;
}

/* Open something that is there; its descriptor, or an error. */
static int32_t open_new(enum open_kind kind, struct file *file, uint32_t flags)
{
    struct open_file *open = open_file_new(kind);
    int descriptor;

    if (!open)
        return ERROR_TOO_MANY;
    descriptor = descriptor_for(open);
    if (descriptor < 0) {
        open->users = 0;
        return descriptor;
    }
    open->file = file;
    open->may_write = flags & OPEN_WRITE;
    if (file)
        file->users++;
    return descriptor;
}

int32_t call_open(uint32_t path, uint32_t flags)
{
    struct file *file;
    enum open_kind kind;

    if (!can_read_text(path))
        return ERROR_BAD_ADDRESS;
    kind = kind_named((const char *)path);
    if (kind != OPEN_FILE)
        return open_new(kind, 0, flags);
    file = flags & OPEN_CREATE ? file_create((const char *)path) : file_named((const char *)path);
    if (!file)
        return ERROR_NO_FILE;
    if ((flags & OPEN_WRITE) && file->archived)
        return ERROR_PERMISSION;
    return open_new(OPEN_FILE, file, flags);
}

int32_t call_close(uint32_t descriptor)
{
    struct open_file *open = opened(descriptor);

    if (!open)
        return ERROR_BAD_DESCRIPTOR;
    current->descriptors[descriptor] = 0;
    open_file_release(open);
    return 0;
}

int32_t call_read(uint32_t descriptor, uint32_t address, uint32_t bytes)
{
    struct open_file *open = opened(descriptor);
    uint32_t done;

    if (!open)
        return ERROR_BAD_DESCRIPTOR;
    if (!can_write(address, bytes))
        return ERROR_BAD_ADDRESS;
    switch (open->kind) {
    case OPEN_FILE:
        done = file_read(open->file, open->offset, (void *)address, bytes);
        open->offset += done;
        return (int32_t)done;
    case OPEN_PIPE_TO_READ:
        return pipe_read(open->pipe, (uint8_t *)address, bytes);
    case OPEN_ZERO:
        memset((void *)address, 0, bytes);
        return (int32_t)bytes;
    case OPEN_NULL:
    case OPEN_CONSOLE:
        return 0;               /* nobody types */
    default:
        return ERROR_BAD_DESCRIPTOR;
    }
}

int32_t call_write(uint32_t descriptor, uint32_t address, uint32_t bytes)
{
    struct open_file *open = opened(descriptor);
    uint32_t done;

    if (!open)
        return ERROR_BAD_DESCRIPTOR;
    if (!can_read(address, bytes))
        return ERROR_BAD_ADDRESS;
    switch (open->kind) {
    case OPEN_FILE:
        if (!open->may_write)
            return ERROR_BAD_DESCRIPTOR;
        done = file_write(open->file, open->offset, (const void *)address, bytes);
        open->offset += done;
        return done || !bytes ? (int32_t)done : ERROR_TOO_LARGE;
    case OPEN_PIPE_TO_WRITE:
        return pipe_write(open->pipe, (const uint8_t *)address, bytes);
    case OPEN_CONSOLE:
        for (done = 0; done < bytes; done++)
            machine_put_character(((const char *)address)[done]);
        return (int32_t)bytes;
    case OPEN_NULL:
        return open->may_write ? (int32_t)bytes : ERROR_BAD_DESCRIPTOR;
    default:
        return ERROR_BAD_DESCRIPTOR;
    }
}

int32_t call_seek(uint32_t descriptor, uint32_t offset)
{
    struct open_file *open = opened(descriptor);

    if (!open || open->kind != OPEN_FILE)
        return ERROR_BAD_DESCRIPTOR;
    if (offset > open->file->bytes)
        return ERROR_BAD_ARGUMENT; /* no holes: every page below the end was written */
    open->offset = offset;
    return 0;
}

int32_t call_duplicate(uint32_t descriptor)
{
    struct open_file *open = opened(descriptor);
    int copy;

    if (!open)
        return ERROR_BAD_DESCRIPTOR;
    copy = descriptor_for(open);
    if (copy >= 0)
        open_file_share(open);
    return copy;
}

int32_t call_remove(uint32_t path)
{
    struct file *file;

    if (!can_read_text(path))
        return ERROR_BAD_ADDRESS;
    file = file_named((const char *)path);
    if (!file)
        return ERROR_NO_FILE;
    if (file->archived)
        return ERROR_PERMISSION;
    file_remove(file);
    return 0;
}

int32_t call_stat(uint32_t path, uint32_t address)
{
    struct file_status *status = (struct file_status *)address;
    const struct file *file;

    if (!can_read_text(path) || !can_write(address, sizeof *status))
        return ERROR_BAD_ADDRESS;
    if (kind_named((const char *)path) != OPEN_FILE) {
        *status = (struct file_status){STATUS_DEVICE, 0, 0};
        return 0;
    }
    file = file_named((const char *)path);
    if (!file)
        return ERROR_NO_FILE;
    *status = (struct file_status){file->archived ? STATUS_ARCHIVED : STATUS_FILE, file->bytes, file->users};
    return 0;
}
