// A load on a network from inside a guest, and its other end on the host.
//
//   net_load serve ADDRESS PORT          takes one connection after the other, and does what the first byte of it says
//   net_load send|receive|echo ADDRESS PORT SECONDS
//
// send, receive: one TCP connection, as fast as it goes. echo: one byte there and back at a time. Prints "ready", begins at a line on
// standard input and says nothing until it is done: "ops N ns T" (bytes, or round trips), so that whoever counts exits counts none of
// the console's. Ends at the next line.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace {

constexpr size_t kBlockBytes = 64 * 1024;
char block[kBlockBytes];

uint64_t NowNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

int Fail(const char* what) {
  std::perror(what);
  return 1;
}

void AwaitLine() {
  char character = 0;
  while (::read(0, &character, 1) == 1 && character != '\n') continue;
}

sockaddr_in Address(const char* text, const char* port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::atoi(port)));
  ::inet_pton(AF_INET, text, &address.sin_addr);
  return address;
}

void ServeOne(int fd) {
  char kind = 0;
  if (::read(fd, &kind, 1) != 1) return;
  if (kind == 'r') {
    while (::write(fd, block, sizeof(block)) > 0) continue;
  } else if (kind == 's') {
    while (::read(fd, block, sizeof(block)) > 0) continue;
  } else {
    for (char byte = 0; ::read(fd, &byte, 1) == 1 && ::write(fd, &byte, 1) == 1;) continue;
  }
}

int Serve(const sockaddr_in& address) {
  const int listening = ::socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  ::setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(listening, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 || ::listen(listening, 4) != 0) return Fail("listen");
  while (true) {
    const int fd = ::accept(listening, nullptr, nullptr);
    if (fd < 0) continue;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    ServeOne(fd);
    ::close(fd);
  }
}

// Bytes, or round trips; less than 0: the connection broke.
int64_t Step(int fd, char kind) {
  if (kind == 's') return ::write(fd, block, sizeof(block));
  if (kind == 'r') return ::read(fd, block, sizeof(block));
  char byte = 'x';
  return ::write(fd, &byte, 1) == 1 && ::read(fd, &byte, 1) == 1 ? 1 : -1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  ::signal(SIGPIPE, SIG_IGN);
  const sockaddr_in address = Address(argv[2], argv[3]);
  const std::string_view what = argv[1];
  if (what == "serve") return Serve(address);
  if (argc != 5) return 2;
  const auto duration_ns = static_cast<uint64_t>(std::atof(argv[4]) * 1e9);
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return Fail("connect");
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const char kind = what[0];
  std::printf("ready\n");
  std::fflush(stdout);
  AwaitLine();
  if (::write(fd, &kind, 1) != 1) return Fail("write");
  int64_t done = 0;
  const uint64_t begin = NowNs();
  while (NowNs() - begin < duration_ns) {
    const int64_t step = Step(fd, kind);
    if (step <= 0) return Fail("the connection");
    done += step;
  }
  const uint64_t elapsed = NowNs() - begin;
  ::close(fd);
  std::printf("ops %lld ns %llu\n", static_cast<long long>(done), static_cast<unsigned long long>(elapsed));
  std::fflush(stdout);
  AwaitLine();
  return 0;
}
