/* Hypercalls, by the page that the hypervisor fills with code: entry n calls number n. */
#ifndef HYPERCALL_H
#define HYPERCALL_H

#include "../../lib/xen.h"

extern uint8_t hypercall_page[];
extern const struct start_info *const start; /* what the builder of this domain tells it */

/* Arguments that are not needed are 0. The hypervisor may change the registers that hold them. */
static inline __attribute__((always_inline)) int32_t hypercall(uint32_t number, uint32_t one, uint32_t two, uint32_t three,
                                                               uint32_t four)
{
    int32_t answer;

    __asm__ volatile("call hypercall_page + %c5"
                     : "=a"(answer), "+b"(one), "+c"(two), "+d"(three), "+S"(four)
                     : "i"(number * HYPERCALL_BYTES) : "memory");
    return answer;
}

/* The same by a number that the compiler does not know. */
static inline int32_t hypercall_numbered(uint32_t number, const uint32_t arguments[4])
{
    uint32_t one = arguments[0], two = arguments[1], three = arguments[2], four = arguments[3];
    int32_t answer;

    __asm__ volatile("call *%%eax"
                     : "=a"(answer), "+b"(one), "+c"(two), "+d"(three), "+S"(four)
                     : "0"(hypercall_page + number * HYPERCALL_BYTES) : "memory");
    return answer;
}

/* End the run unless this went well: the kernel asks for nothing that may be refused. */
void must_succeed(int32_t answer, const char *what);

#endif
