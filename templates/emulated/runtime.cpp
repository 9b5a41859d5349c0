// The runtime in one piece, so that an access costs no call between its parts.
#include "access.cpp"
#include "faults.cpp"
#include "late.cpp"
#include "memory.cpp"
#include "schedule.cpp"
#include "sectors.cpp"
#include "shared.cpp"
#include "together.cpp"
