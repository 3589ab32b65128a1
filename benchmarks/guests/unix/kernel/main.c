/* From the loader to the first program. */
#include "../include/machine.h"
#include "command_line.h"
#include "console.h"
#include "files.h"
#include "frames.h"
#include "process.h"
#include "scheduler.h"
#include "space.h"

#define FIRST_PROGRAM "init"

extern const uint8_t ram_disk[], ram_disk_end[];
extern uint8_t kernel_end[];

_Noreturn void kernel_main(uint32_t wrong_loader, const char *text)
{
    struct options options;
    const void *call_page;
    uint32_t call_page_bytes;

    if (wrong_loader)
        panic("not started by a Multiboot loader", EXIT_BAD_LOADER);
    options = command_line(text);
    machine_start();
    spaces_start();
    frames_add(machine_free_from((uint32_t)kernel_end), MEMORY_BYTES);
    archive_read(ram_disk, ram_disk_end);
    call_page = machine_call_page(&call_page_bytes);
    processes_start(call_page, call_page_bytes);
    if (options.timer)
        timer_start();
    process_start_first((const char *const[]){FIRST_PROGRAM, options.iterations, options.program, 0});
}
