/* The back end of the guest's disk. */
#ifndef BLOCK_BACK_H
#define BLOCK_BACK_H

void block_back_start(void);
void block_back_serve(void);

#endif
