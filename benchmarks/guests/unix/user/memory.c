/* Demand paging, copy-on-write, mappings, the stack; and what the kernel must refuse. */
#include "program.h"

#define PAGES 20
#define SUM_OF_STACK 12 /* pages of stack that deep() takes */

static uint32_t bss[PAGES * PAGE_BYTES / 4];

static void touch(volatile uint32_t *memory, uint32_t pages, uint32_t value)
{
    for (uint32_t page = 0; page < pages; page++)
        memory[page * PAGE_BYTES / 4] = value + page;
}

static int shows(const volatile uint32_t *memory, uint32_t pages, uint32_t value)
{
    for (uint32_t page = 0; page < pages; page++)
        if (memory[page * PAGE_BYTES / 4] != value + page)
            return 0;
    return 1;
}

static int is_clear(const volatile uint32_t *memory, uint32_t bytes)
{
    for (uint32_t word = 0; word < bytes / 4; word++)
        if (memory[word])
            return 0;
    return 1;
}

/* A mapping takes no page before it is touched, is all zeros then, and gives everything back. */
static void test_map(void)
{
    const int32_t before = free_pages();
    uint32_t *memory = map(1u << 20);
    uint32_t *other;

    check(!is_error(memory), "map() gives an address");
    check(free_pages() == before, "a mapping takes no page");
    touch(memory, 8, 1);
    check(before - free_pages() == 9, "each page touched takes one, and their table");
    check(is_clear(memory + 1, PAGE_BYTES - 4) && shows(memory, 8, 1), "new pages are zeros");
    other = map(1);
    check(!is_error(other) && other != memory, "a second mapping lies elsewhere");
    check(unmap(memory + 1) == ERROR_BAD_ARGUMENT, "only a whole mapping can be taken away");
    check(unmap(memory) == 0 && unmap(memory) == ERROR_BAD_ARGUMENT, "a mapping can be taken away once");
    check(before - free_pages() == 1, "its pages come back, the table stays");
    check(map(1u << 20) == (void *)memory, "its place is given again");
    check(is_clear(memory, 8 * PAGE_BYTES), "its pages are new ones");
    unmap(memory);
    unmap(other);
    check(map(64u << 20) == (void *)ERROR_BAD_ARGUMENT, "more than there is cannot be mapped");
}

/* A child that shares pages takes its own only of those that it writes; one by copying takes all at once. */
static void test_fork(int32_t (*way)(void), int32_t at_once, int32_t later)
{
    int32_t before, child;

    touch(bss, PAGES, 100);
    before = free_pages();
    child = way();
    if (child == 0) {
        const int32_t mine = free_pages();

        if (!shows(bss, PAGES, 100) || before - mine < at_once)
            exit(90);
        touch(bss, PAGES / 2, 200);
        if (mine - free_pages() != later)
            exit(91);
        exit(shows(bss, PAGES / 2, 200) && shows(bss + PAGES / 2 * 1024, PAGES / 2, 100 + PAGES / 2) ? 0 : 92);
    }
    check(wait_for(child) == 0, "the child's pages are its own when it writes them");
    check(shows(bss, PAGES, 100), "the parent's pages are as they were");
    touch(bss, PAGES, 300);
    check(shows(bss, PAGES, 300) && free_pages() == before, "the parent writes in place when nobody shares");
}

/* The kernel itself writes into a page that is shared, and into one that is not there. */
static void test_kernel_writes(void)
{
    const int32_t file = open("letters", 0);
    const int32_t child = fork();
    char *memory;

    if (child == 0) {
        const int32_t done = read(file, bss, 26);

        exit(done == 26 && *(char *)bss == 'a' ? 0 : 93);
    }
    check(wait_for(child) == 0, "the kernel writes into the child's copy");
    check(bss[0] == 300, "and not into the parent's");
    seek(file, 0);
    memory = map(PAGE_BYTES);
    check(read(file, memory, 26) == 26 && memory[25] == 'z', "the kernel writes into a page that was not there");
    unmap(memory);
    close(file);
}

/* Whether a child that touches this address ends by SIGNAL_SEGMENT. */
static int is_refused(uint32_t address, int write)
{
    volatile uint32_t *memory = (volatile uint32_t *)address;
    const int32_t child = fork();

    if (child == 0) {
        if (write)
            *memory = 1;
        exit((int)*memory & 0);
    }
    return wait_for(child) == STATUS_OF_SIGNAL(SIGNAL_SEGMENT);
}

static void test_refusals(void)
{
    const uint32_t code = (uint32_t)test_refusals;

    check(!is_refused(code, 0), "a program may read its code");
    check(is_refused(code, 1), "a program may not write its code");
    check(is_refused(0x100000, 0) && is_refused(0x100000, 1), "the kernel is out of reach");
    check(is_refused(0, 0), "there is nothing at address 0");
    check(is_refused(USER_MAPPINGS, 0), "there is nothing where nothing is mapped");
    check(is_refused(USER_END, 0) && is_refused(0xF0000000, 1), "there is nothing above a program's space");
    check(!is_refused(USER_CALL_PAGE, 0) && is_refused(USER_CALL_PAGE, 1), "the call page may only be read");
    check(is_refused(USER_STACK_TOP - STACK_BYTES - 4, 1), "the stack has an end");
    check(read(0, (void *)code, 4) == ERROR_BAD_ADDRESS, "the kernel writes no code for a program");
    check(write(1, (void *)0x100000, 4) == ERROR_BAD_ADDRESS, "the kernel does not read itself for a program");
    check(write(1, (void *)0xFFFFFFF0, 0x20) == ERROR_BAD_ADDRESS, "a range that wraps around is refused");
    check(write(1, bss, 0x80000000) == ERROR_BAD_ADDRESS, "a range that leaves its area is refused");
}

static uint32_t deep(uint32_t pages)
{
    volatile uint32_t local[PAGE_BYTES / 4];

    local[0] = pages;
    return pages ? deep(pages - 1) + local[0] : 0;
}

/* Who wants more memory than there is loses everything, and nobody else does. */
static void test_no_memory(void)
{
    const int32_t before = free_pages();
    const int32_t child = fork();

    if (child == 0) {
        for (;;) {
            uint32_t *memory = map(2u << 20);

            if (is_error(memory))
                exit(94);
            touch(memory, (2u << 20) / PAGE_BYTES, 1);
        }
    }
    check(wait_for(child) == STATUS_OF_SIGNAL(SIGNAL_KILL), "who takes all memory is ended");
    check(free_pages() == before, "and all its pages come back");
}

int main(void)
{
    check(is_clear(bss, sizeof bss), "a program's variables are zeros");
    test_map();
    test_fork(fork, 4, PAGES / 2);
    test_fork(fork_copying, PAGES + 4, 0);
    test_kernel_writes();
    test_refusals();
    check(deep(SUM_OF_STACK) == SUM_OF_STACK * (SUM_OF_STACK + 1) / 2, "the stack grows when it is used");
    test_no_memory();
    return 0;
}
