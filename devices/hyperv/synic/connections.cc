#include "devices/hyperv/synic/connections.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "absl/strings/str_cat.h"

namespace vmm {
namespace {

struct ById {
  template <typename Entry>
  bool operator()(const Entry& entry, uint32_t connection) const {
    return entry.connection < connection;
  }
};

}  // namespace

ConnectionTable::ConnectionTable(SynicDirectory& synics) : synics_(synics) { entries_.reserve(kMaxConnections); }

absl::Status ConnectionTable::Add(uint32_t connection, const Port& port) {
  if (port.type == PortType::kEvent &&
      (port.flag_count == 0 || port.flag_count > kHvEventFlagCount || port.base_flag > kHvEventFlagCount - port.flag_count)) {
    return absl::InvalidArgumentError(absl::StrCat("add connection ", connection, ": event flags ", port.base_flag, " and ",
                                                   port.flag_count, " on are not within ", kHvEventFlagCount));
  }
  const std::unique_lock lock(mutex_);
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), connection, ById());
  if (at != entries_.end() && at->connection == connection) {
    return absl::AlreadyExistsError(absl::StrCat("add connection ", connection, ": it has port ", at->port.id));
  }
  if (entries_.size() == kMaxConnections) {
    return absl::ResourceExhaustedError(absl::StrCat("add connection ", connection, ": there are ", kMaxConnections));
  }
  entries_.insert(at, {connection, port});
  return absl::OkStatus();
}

absl::Status ConnectionTable::Remove(uint32_t connection) {
  const std::unique_lock lock(mutex_);
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), connection, ById());
  if (at == entries_.end() || at->connection != connection) {
    return absl::NotFoundError(absl::StrCat("remove connection ", connection));
  }
  entries_.erase(at);
  return absl::OkStatus();
}

size_t ConnectionTable::size() const {
  const std::shared_lock lock(mutex_);
  return entries_.size();
}

const Port* ConnectionTable::FindLocked(uint32_t connection) const noexcept {
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), connection, ById());
  return at != entries_.end() && at->connection == connection ? &at->port : nullptr;
}

Synic* ConnectionTable::Target(const Port& port) const noexcept {
  if (port.vp != kHvAnyVp) return synics_.Find(port.vp, port.vtl);
  for (uint32_t vp = 0; vp < synics_.vp_count(); ++vp) {
    Synic* const synic = synics_.Find(VpIndex(vp), port.vtl);
    if (synic == nullptr) continue;
    if (port.type == PortType::kMessage ? synic->accepts_messages() : synic->accepts_events()) return synic;
  }
  return nullptr;
}

HvStatus ConnectionTable::PostMessage(Poster poster, uint32_t connection, uint32_t message_type,
                                      std::span<const uint8_t> payload) noexcept {
  const auto type = static_cast<HvMessageType>(message_type);
  if (type == HvMessageType::kNone || IsHypervisorMessage(type) || payload.size() > kHvMessagePayloadBytes) {
    return HvStatus::kInvalidParameter;
  }
  const std::shared_lock lock(mutex_);
  const Port* const port = FindLocked(connection);
  if (port == nullptr) return HvStatus::kInvalidConnectionId;
  if (port->type != PortType::kMessage) return HvStatus::kInvalidPortId;
  Synic* const synic = Target(*port);
  if (synic == nullptr) return HvStatus::kInvalidVpIndex;
  HvMessage message;  // no more of it than the payload is read
  message.header = {.type = type,
                    .payload_size = static_cast<uint8_t>(payload.size()),
                    .flags = 0,
                    .reserved = 0,
                    .origination_id = port->id};
  if (!payload.empty()) std::memcpy(message.payload, payload.data(), payload.size());
  // Under the lock, which is what Remove promises; interrupt and kick do not block.
  return synic->Post(poster, port->sint, message);
}

HvStatus ConnectionTable::SignalEvent(uint32_t connection, uint32_t flag) noexcept {
  const std::shared_lock lock(mutex_);
  const Port* const port = FindLocked(connection);
  if (port == nullptr) return HvStatus::kInvalidConnectionId;
  if (port->type != PortType::kEvent) return HvStatus::kInvalidPortId;
  if (flag >= port->flag_count) return HvStatus::kInvalidParameter;
  Synic* const synic = Target(*port);
  if (synic == nullptr) return HvStatus::kInvalidVpIndex;
  return synic->SignalEvent(port->sint, port->base_flag + flag);
}

}  // namespace vmm
