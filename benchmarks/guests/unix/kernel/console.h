/* Text for people, and the two ends of a run. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stdint.h>

#define EXIT_PANIC 252          /* the kernel found itself in a state that cannot be */
#define EXIT_BAD_LOADER 253     /* these three are the same for every guest (abi.inc) */
#define EXIT_BAD_COMMAND_LINE 254
#define EXIT_TRAP 255

void print(const char *text);
void print_hex(uint32_t value);
_Noreturn void finish(uint32_t code);                /* the first process's verdict */
_Noreturn void panic(const char *why, uint32_t code);

#endif
