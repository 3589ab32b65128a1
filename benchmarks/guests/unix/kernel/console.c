/* Text for people, and the two ends of a run. */
#include "console.h"

#include "../include/machine.h"

void print(const char *text)
{
    while (*text)
        machine_put_character(*text++);
}

void print_hex(uint32_t value)
{
    for (int shift = 28; shift >= 0; shift -= 4)
        machine_put_character("0123456789abcdef"[value >> shift & 15]);
}

static void print_decimal(uint32_t value)
{
    if (value >= 10)
        print_decimal(value / 10);
    machine_put_character((char)('0' + value % 10));
}

_Noreturn void finish(uint32_t code)
{
    if (code == 0) {
        print("unix: passed\n");
        machine_shut_down(0);
    }
    panic("a program found an error", code);
}

_Noreturn void panic(const char *why, uint32_t code)
{
    print("unix: failed: ");
    print(why);
    print(" (exit code ");
    print_decimal(code);
    print(")\n");
    machine_shut_down(code);
}
