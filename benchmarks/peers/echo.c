/*
 * Raw sockets in C: what the machine allows. Compiled when the benchmark runs; raw_c.py says how it is used.
 *
 *   echo server PATH [LOG]      echoes what comes, to many at a time; with LOG it is appended and flushed first
 *   echo client PATH new|kept COUNT BYTES    prints the nanoseconds of each echo, a line each
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BACKLOG = 512, EVENTS = 64, READ_BYTES = 65536 };

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path) {
        fprintf(stderr, "%s is too long for a socket\n", path);
        exit(1);
    }
    strcpy(address.sun_path, path);
    return address;
}

/* One read of one connection: stored if there is a log, echoed; closed at its end. */
static void serve(int link, int log)
{
    static char data[READ_BYTES];
    ssize_t size = recv(link, data, sizeof data, MSG_DONTWAIT);
    if (size == 0) {
        close(link);
        return;
    }
    if (size < 0)
        return; /* nothing there yet */
    if (log >= 0 && (write(log, data, size) != size || fdatasync(log) < 0))
        die("log");
    if (send(link, data, size, MSG_NOSIGNAL) != size)
        close(link);
}

static void server(const char *path, const char *log_path)
{
    struct sockaddr_un address = address_of(path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, BACKLOG) < 0)
        die(path);
    int log = log_path ? open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event wanted = { .events = EPOLLIN, .data.fd = listener }, events[EVENTS];
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &wanted) < 0)
        die("epoll");
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int link = events[i].data.fd;
            if (link == listener) {
                link = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                if (link < 0)
                    continue;
                wanted.data.fd = link;
                if (epoll_ctl(epoll, EPOLL_CTL_ADD, link, &wanted) < 0)
                    die("epoll");
            }
            serve(link, log);
        }
    }
}

static int connected(const struct sockaddr_un *address)
{
    int link = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (link < 0 || connect(link, (const struct sockaddr *)address, sizeof *address) < 0)
        die("connect");
    return link;
}

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void client(const char *path, int is_kept, long count, size_t bytes)
{
    struct sockaddr_un address = address_of(path);
    char *data = malloc(bytes), *answer = malloc(bytes);
    if (!data || !answer)
        die("malloc");
    memset(data, 'x', bytes);
    int link = is_kept ? connected(&address) : -1;
    for (long i = 0; i < count; i++) {
        long long began = now_ns();
        if (!is_kept)
            link = connected(&address);
        if (send(link, data, bytes, MSG_NOSIGNAL) != (ssize_t)bytes || recv(link, answer, bytes, MSG_WAITALL) != (ssize_t)bytes)
            die("echo");
        if (!is_kept)
            close(link);
        printf("%lld\n", now_ns() - began);
    }
}

int main(int argc, char **argv)
{
    if (argc >= 3 && !strcmp(argv[1], "server"))
        server(argv[2], argc > 3 ? argv[3] : NULL);
    else if (argc == 6 && !strcmp(argv[1], "client"))
        client(argv[2], !strcmp(argv[3], "kept"), atol(argv[4]), atol(argv[5]));
    else
        return 2;
    return 0;
}
