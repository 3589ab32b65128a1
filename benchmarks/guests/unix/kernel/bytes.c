/* Copy, fill and compare, by the string instructions, as kernels of the time did. */
#include "bytes.h"

#include "../include/sizes.h"

void *memcpy(void *to, const void *from, size_t bytes)
{
    void *target = to;
    size_t words = bytes / 4;

    bytes &= 3;
    __asm__ volatile("rep movsl" : "+D"(target), "+S"(from), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(target), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    void *target = to;
    size_t words = bytes / 4;

    bytes &= 3;
    __asm__ volatile("rep stosl" : "+D"(target), "+c"(words) : "a"((value & 0xFF) * 0x01010101u) : "memory");
    __asm__ volatile("rep stosb" : "+D"(target), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

void copy_page(void *to, const void *from)
{
    memcpy(to, from, PAGE_BYTES);
}

void clear_page(void *page)
{
    memset(page, 0, PAGE_BYTES);
}

int same_text(const char *one, const char *two)
{
    while (*one && *one == *two) {
        one++;
        two++;
    }
    return *one == *two;
}

size_t text_bytes(const char *text)
{
    size_t bytes = 0;

    while (text[bytes])
        bytes++;
    return bytes;
}
