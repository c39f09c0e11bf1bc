#include "sandbox/spawner_wire.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "sandbox/jail_options.h"

namespace vmm::internal {
namespace {

// Of records: each ends with a NUL, which no argument can have in it.
class Reader {
 public:
  explicit Reader(absl::string_view text) : text_(text) {}
  std::optional<absl::string_view> Next() {
    const size_t end = text_.find('\0');
    if (end == absl::string_view::npos) return std::nullopt;
    const absl::string_view record = text_.substr(0, end);
    text_.remove_prefix(end + 1);
    return record;
  }
  std::optional<uint64_t> Number() {
    const auto record = Next();
    uint64_t value = 0;
    if (!record || !absl::SimpleAtoi(*record, &value)) return std::nullopt;
    return value;
  }
  [[nodiscard]] bool AtEnd() const { return text_.empty(); }

 private:
  absl::string_view text_;
};

void Put(std::string& out, absl::string_view record) {
  absl::StrAppend(&out, record);
  out.push_back('\0');
}

}  // namespace

std::string EncodeRequest(const SpawnRequest& request) {
  std::string out;
  Put(out, request.name);
  Put(out, request.keeps_terminal ? "1" : "0");
  for (const uint64_t limit : {request.limits.open_files, request.limits.processes, request.limits.address_space_bytes,
                               request.limits.file_bytes}) {
    Put(out, absl::StrCat(limit));
  }
  const std::vector<std::string> jail = JailOptionArguments(request.jail);
  for (const auto* list : {&request.arguments, &jail}) {
    Put(out, absl::StrCat(list->size()));
    for (const std::string& item : *list) Put(out, item);
  }
  Put(out, absl::StrCat(request.fds.size()));
  for (const FdMapping& fd : request.fds) Put(out, absl::StrCat(fd.child_fd));
  return out;
}

std::optional<SpawnRequest> DecodeRequest(absl::string_view text) {
  Reader reader(text);
  SpawnRequest request;
  const auto name = reader.Next();
  const auto terminal = reader.Number();
  if (!name || !terminal || *terminal > 1) return std::nullopt;
  request.name = std::string(*name);
  request.keeps_terminal = *terminal == 1;
  for (uint64_t* limit : {&request.limits.open_files, &request.limits.processes, &request.limits.address_space_bytes,
                          &request.limits.file_bytes}) {
    const auto value = reader.Number();
    if (!value) return std::nullopt;
    *limit = *value;
  }
  const auto arguments = reader.Number();
  if (!arguments) return std::nullopt;
  for (uint64_t i = 0; i < *arguments; ++i) {
    const auto argument = reader.Next();
    if (!argument) return std::nullopt;
    request.arguments.emplace_back(*argument);
  }
  const auto options = reader.Number();
  if (!options) return std::nullopt;
  for (uint64_t i = 0; i < *options; ++i) {
    const auto option = reader.Next();
    if (!option || !ParseJailOptionArgument(*option, request.jail)) return std::nullopt;
  }
  const auto fds = reader.Number();
  if (!fds || *fds > kSpawnerFds) return std::nullopt;
  for (uint64_t i = 0; i < *fds; ++i) {
    const auto fd = reader.Number();
    if (!fd || *fd > 1'000'000) return std::nullopt;
    request.fds.push_back({-1, static_cast<int>(*fd)});
  }
  if (!reader.AtEnd()) return std::nullopt;
  return request;
}

bool SendMessage(int socket, absl::string_view bytes, const std::vector<int>& fds) noexcept {
  iovec io{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kSpawnerFds)] = {};
  if (fds.size() > kSpawnerFds) return false;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  }
  ssize_t sent;
  do {
    sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(bytes.size());
}

std::optional<ReceivedMessage> ReceiveMessage(int socket) {
  ReceivedMessage received;
  received.bytes.resize(kSpawnerMessageBytes);
  iovec io{received.bytes.data(), received.bytes.size()};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kSpawnerFds)] = {};
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t got;
  do {
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return std::nullopt;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
      received.fds.emplace_back(fd);
    }
  }
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return std::nullopt;
  received.bytes.resize(static_cast<size_t>(got));
  return received;
}

}  // namespace vmm::internal
