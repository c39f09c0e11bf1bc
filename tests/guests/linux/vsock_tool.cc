// In the guest: a stream over a virtio socket.
//
//   vsock_tool connect PORT   standard input to the host's PORT, what comes back to standard output; ends when the host has closed
//   vsock_tool echo PORT N    answers N connections to PORT, one after the other: gives back what it gets, until its end
//
// Status 0: all of it went well; 1: an error, named on standard error.
#include <linux/vm_sockets.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "vsock_tool: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

void WriteAll(int fd, const char* data, ssize_t bytes) {
  while (bytes > 0) {
    const ssize_t done = ::write(fd, data, static_cast<size_t>(bytes));
    if (done < 0) Fail("write");
    data += done;
    bytes -= done;
  }
}

int Open(unsigned cid, unsigned port, sockaddr_vm& address) {
  const int fd = ::socket(AF_VSOCK, SOCK_STREAM, 0);
  if (fd < 0) Fail("socket");
  std::memset(&address, 0, sizeof(address));
  address.svm_family = AF_VSOCK;
  address.svm_cid = cid;
  address.svm_port = port;
  return fd;
}

void Connect(unsigned port) {
  sockaddr_vm address;
  const int fd = Open(VMADDR_CID_HOST, port, address);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) Fail("connect");
  static char buffer[65536];
  bool input = true;
  while (true) {
    pollfd fds[] = {{fd, POLLIN, 0}, {input ? STDIN_FILENO : -1, POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0) Fail("poll");
    if (fds[0].revents != 0) {
      const ssize_t got = ::read(fd, buffer, sizeof(buffer));
      if (got < 0) Fail("read from the host");
      if (got == 0) return;
      WriteAll(STDOUT_FILENO, buffer, got);
    }
    if (fds[1].revents != 0) {
      const ssize_t got = ::read(STDIN_FILENO, buffer, sizeof(buffer));
      if (got < 0) Fail("read standard input");
      if (got == 0) {
        input = false;
        if (::shutdown(fd, SHUT_WR) != 0) Fail("shutdown");
      }
      WriteAll(fd, buffer, got);
    }
  }
}

void Echo(unsigned port, int connections) {
  sockaddr_vm address;
  const int listening = Open(VMADDR_CID_ANY, port, address);
  if (::bind(listening, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) Fail("bind");
  if (::listen(listening, 16) != 0) Fail("listen");
  std::printf("vsock_tool: listening\n");
  std::fflush(stdout);
  static char buffer[65536];
  while (connections-- > 0) {
    const int fd = ::accept(listening, nullptr, nullptr);
    if (fd < 0) Fail("accept");
    while (true) {
      const ssize_t got = ::read(fd, buffer, sizeof(buffer));
      // A host that was killed resets its connection.
      if (got <= 0) break;
      WriteAll(fd, buffer, got);
    }
    ::close(fd);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "connect") == 0) {
    Connect(static_cast<unsigned>(std::atoi(argv[2])));
  } else if (argc == 4 && std::strcmp(argv[1], "echo") == 0) {
    Echo(static_cast<unsigned>(std::atoi(argv[2])), std::atoi(argv[3]));
  } else {
    std::fprintf(stderr, "usage: vsock_tool connect PORT | echo PORT N\n");
    return 2;
  }
  return 0;
}
