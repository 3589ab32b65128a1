/* What the front ends' files share. */
#ifndef XEN_FRONT_OWN_H
#define XEN_FRONT_OWN_H

#include "front.h"

extern const struct start_info *front_information;

#endif
