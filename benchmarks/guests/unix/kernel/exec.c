/* exec: the arguments are copied out of the old address space, the program's file says what the new one looks like, and
   nothing of it is read before it is touched. */
#include "exec.h"

#include "../include/abi.h"
#include "bytes.h"
#include "frames.h"
#include "process.h"
#include "signals.h"

#define ELF_MAGIC 0x464C457Fu
#define ELF_EXECUTABLE 2        /* e_type */
#define ELF_386 3               /* e_machine */
#define SEGMENT_LOAD 1          /* p_type */
#define SEGMENT_WRITE 2         /* p_flags */
#define SEGMENTS_AT_MOST 4

struct elf_header {
    uint32_t magic;
    uint8_t identification[12];
    uint16_t type, machine;
    uint32_t version, entry, segments_offset, sections_offset, processor_flags;
    uint16_t header_bytes, segment_bytes, segments, section_bytes, sections, names;
};

struct elf_segment {
    uint32_t type, offset, address, physical_address, file_bytes, memory_bytes, attributes, alignment;
};

struct program {
    struct file *file;
    uint32_t entry;
    unsigned segments;
    struct elf_segment segment[SEGMENTS_AT_MOST];
};

/* Whether a segment lies where programs may lie, within its file. */
static int segment_is_good(const struct program *program, const struct elf_segment *segment)
{
    return segment->address >= USER_START && segment->memory_bytes <= USER_MAPPINGS - USER_START &&
           segment->address <= USER_MAPPINGS - segment->memory_bytes && segment->file_bytes <= segment->memory_bytes &&
           segment->offset <= program->file->bytes && segment->file_bytes <= program->file->bytes - segment->offset;
}

/* Read a program's headers; 0 or an error. */
static int32_t read_program(const char *path, struct program *program)
{
    struct elf_header header;

    program->file = file_named(path);
    program->segments = 0;
    if (!program->file)
        return ERROR_NO_FILE;
    if (!program->file->archived)
        return ERROR_PERMISSION; /* it could change while it runs */
    if (file_read(program->file, 0, &header, sizeof header) != sizeof header || header.magic != ELF_MAGIC ||
        header.type != ELF_EXECUTABLE || header.machine != ELF_386)
        return ERROR_NO_PROGRAM;
    program->entry = header.entry;
    for (unsigned number = 0; number < header.segments; number++) {
        struct elf_segment segment;
        const uint32_t offset = header.segments_offset + number * sizeof segment;

        if (file_read(program->file, offset, &segment, sizeof segment) != sizeof segment)
            return ERROR_NO_PROGRAM;
        if (segment.type != SEGMENT_LOAD || !segment.memory_bytes)
            continue;
        if (program->segments == SEGMENTS_AT_MOST || !segment_is_good(program, &segment))
            return ERROR_NO_PROGRAM;
        program->segment[program->segments++] = segment;
    }
    return program->segments ? 0 : ERROR_NO_PROGRAM;
}

/* Compose the highest page of the new stack in a frame: the strings at its end, below them the pointers, below them argv and
   argc. Returns the new ESP, or 0 if they do not fit. */
static uint32_t compose_arguments(uint32_t frame, const char *const *arguments)
{
    const uint32_t page = USER_STACK_TOP - PAGE_BYTES;
    uint32_t addresses[ARGUMENTS];
    uint32_t offset = ARGUMENT_BYTES, count = 0;
    uint32_t *words;

    for (; arguments[count]; count++) {
        const uint32_t bytes = text_bytes(arguments[count]) + 1;

        if (count == ARGUMENTS || bytes + (count + 4) * 4 > offset)
            return 0;
        offset -= bytes;
        memcpy((uint8_t *)frame + offset, arguments[count], bytes);
        addresses[count] = page + offset;
    }
    offset = (offset & ~3u) - (count + 3) * 4;
    words = (uint32_t *)(frame + offset);
    words[0] = count;
    words[1] = page + offset + 8;
    memcpy(words + 2, addresses, count * 4);
    words[2 + count] = 0;
    return page + offset;
}

static void map_segment(const struct program *program, const struct elf_segment *segment)
{
    const uint32_t start = segment->address & ENTRY_FRAME;
    const uint32_t end = (segment->address + segment->memory_bytes + PAGE_BYTES - 1) & ENTRY_FRAME;
    struct area *area = area_add(current, start, end, segment->attributes & SEGMENT_WRITE ? AREA_WRITE : 0);

    area->file = program->file;
    area->file_start = segment->address;
    area->file_offset = segment->offset;
    area->file_bytes = segment->file_bytes;
}

static void set_registers(uint32_t entry, uint32_t esp)
{
    struct trap_frame *frame = frame_of(current);

    memset(frame, 0, sizeof *frame);
    frame->vector = VECTOR_SYSTEM_CALL;
    frame->eip = entry;
    frame->cs = USER_CS;
    frame->eflags = EFLAGS_FIXED | EFLAGS_IF;
    frame->esp = esp;
    frame->ss = USER_DS;
}

/* The point of no return: the old program goes, the new one comes. What is missing now ends the process. */
static int32_t replace_program(const struct program *program, uint32_t frame, uint32_t esp)
{
    space_clear(current->root);
    areas_forget(current);
    signals_forget_handlers(current);
    for (unsigned number = 0; number < program->segments; number++)
        map_segment(program, &program->segment[number]);
    area_add(current, USER_STACK_TOP - STACK_BYTES, USER_STACK_TOP, AREA_WRITE);
    if (!space_map(current->root, USER_STACK_TOP - PAGE_BYTES, frame | ENTRY_P | ENTRY_W | ENTRY_U)) {
        frame_release(frame);
        process_exit(STATUS_OF_SIGNAL(SIGNAL_KILL));
    }
    if (!process_add_call_page(current))
        process_exit(STATUS_OF_SIGNAL(SIGNAL_KILL));
    machine_load_root(current->root); /* whole now, and nothing of the old program is known any more */
    set_registers(program->entry, esp);
    return 0;
}

static int32_t exec(const char *path, const char *const *arguments)
{
    struct program program;
    const int32_t error = read_program(path, &program);
    uint32_t frame, esp;

    if (error)
        return error;
    frame = frame_allocate_clear();
    if (!frame)
        return ERROR_NO_MEMORY;
    esp = compose_arguments(frame, arguments);
    if (!esp) {
        frame_release(frame);
        return ERROR_TOO_LARGE;
    }
    return replace_program(&program, frame, esp);
}

int32_t exec_first(const char *const *arguments)
{
    return exec(arguments[0], arguments);
}

/* Whether a program's list of arguments can be read, and every argument. */
static int can_read_arguments(uint32_t address)
{
    const char *const *arguments = (const char *const *)address;

    for (;; arguments++) {
        if (!can_read((uint32_t)arguments, 4))
            return 0;
        if (!*arguments)
            return 1;
        if (!can_read_text((uint32_t)*arguments))
            return 0;
    }
}

int32_t call_exec(uint32_t path, uint32_t arguments)
{
    if (!can_read_text(path) || !can_read_arguments(arguments))
        return ERROR_BAD_ADDRESS;
    return exec((const char *)path, (const char *const *)arguments);
}
