#include "devices/virtio/console/console_device.h"

namespace vmm {

bool ConsoleDevice::WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept {
  // One character of a guest that has no queues yet, or no more.
  if (offset != offsetof(Config, emergency_write) || data.empty() || data.size() > sizeof(uint32_t)) return false;
  (void)stream_.Write(data.first(1));
  return true;
}

bool ConsoleDevice::Process(uint16_t index, BackendQueue& queue) noexcept {
  return index == kReceive ? Receive(queue) : Transmit(queue);
}

bool ConsoleDevice::Receive(BackendQueue& queue) noexcept {
  for (int i = 0; i < kQuantum; ++i) {
    if (queue.Pop(received_) != BackendQueue::PopResult::kChain) {
      stream_.WantInput(false);  // no room: what comes stays where it is
      return false;
    }
    if (received_.writable.empty()) {
      queue.Push(received_, 0);
      continue;
    }
    const iovec& room = received_.writable.front();
    const ssize_t got = stream_.Read(std::span(static_cast<std::byte*>(room.iov_base), room.iov_len));
    if (got <= 0) {
      queue.Unpop(received_);
      stream_.WantInput(got == 0);
      return false;
    }
    queue.Push(received_, static_cast<uint32_t>(got));
  }
  return true;
}

bool ConsoleDevice::SendRest() noexcept {
  uint64_t skip = sent_;
  for (const iovec& segment : sending_.readable) {
    if (skip >= segment.iov_len) {
      skip -= segment.iov_len;
      continue;
    }
    auto left = std::span(static_cast<const std::byte*>(segment.iov_base), segment.iov_len).subspan(skip);
    skip = 0;
    while (!left.empty()) {
      const ssize_t taken = stream_.Write(left);
      if (taken == 0) return false;
      // Nobody reads it: the guest goes on, as with a line that nothing is plugged into.
      const size_t done = taken < 0 ? left.size() : static_cast<size_t>(taken);
      left = left.subspan(done);
      sent_ += done;
    }
  }
  return true;
}

bool ConsoleDevice::Transmit(BackendQueue& queue) noexcept {
  for (int i = 0; i < kQuantum; ++i) {
    if (!is_sending_) {
      if (queue.Pop(sending_) != BackendQueue::PopResult::kChain) {
        stream_.WantOutput(false);
        return false;
      }
      is_sending_ = true;
      sent_ = 0;
    }
    if (!SendRest()) {
      stream_.WantOutput(true);
      return false;
    }
    is_sending_ = false;
    queue.Push(sending_, 0);
  }
  return true;
}

void ConsoleDevice::OnQueueStopped(uint16_t index) noexcept {
  if (index == kReceive) {
    stream_.WantInput(false);
  } else {
    is_sending_ = false;
    stream_.WantOutput(false);
  }
}

void ConsoleDevice::SetSize(uint16_t columns, uint16_t rows) {
  if (!sized_ || (config_.columns == columns && config_.rows == rows)) return;
  config_.columns = columns;
  config_.rows = rows;
  if (host_ != nullptr) host_->ConfigChanged();
}

}  // namespace vmm
