/* Address spaces: two levels of tables. The kernel's 8 MB, in which linear and physical addresses agree, are the same in
   all of them; what a program sees lies from USER_START to USER_END. */
#ifndef SPACE_H
#define SPACE_H

#include <stdint.h>

enum fork_way { FORK_SHARING, FORK_COPYING };

void spaces_start(void);               /* the kernel's own tables; paging is on afterwards */
uint32_t space_create(void);           /* an address space without a program: its root, or 0 */
void space_clear(uint32_t root);       /* release what the program has */
void space_destroy(uint32_t root);     /* and the root */
int space_fork(uint32_t from, uint32_t to, enum fork_way way); /* 0 if memory ran out */

uint32_t space_entry(uint32_t root, uint32_t address); /* what maps a page of the program; 0 if nothing does */
int space_map(uint32_t root, uint32_t address, uint32_t entry); /* a page that is not mapped; 0 if memory ran out */
void space_change(uint32_t root, uint32_t address, uint32_t entry); /* a page of the space in use that is mapped */
void space_commit(void);               /* what was mapped or changed in the space in use counts from now on */
void space_leave(void);                /* use no program's space: the running one's is about to go */

#endif
