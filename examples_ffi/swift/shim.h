#include <rawdb.h>
