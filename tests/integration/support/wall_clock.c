// Shows the process that preloads it a wall clock that is off by as many milliseconds as the file $WALL_CLOCK_OFFSET says.
// Every other clock stays as it is.

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long offset_ms(void) {
    const char *path = getenv("WALL_CLOCK_OFFSET");
    FILE *file = path ? fopen(path, "r") : NULL;
    long milliseconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &milliseconds) != 1) milliseconds = 0;
        fclose(file);
    }
    return milliseconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        long offset = offset_ms();
        now->tv_sec += offset / 1000;
        now->tv_nsec += offset % 1000 * 1000000;
        if (now->tv_nsec < 0) now->tv_sec -= 1, now->tv_nsec += 1000000000;
        if (now->tv_nsec >= 1000000000) now->tv_sec += 1, now->tv_nsec -= 1000000000;
    }
    return result;
}
