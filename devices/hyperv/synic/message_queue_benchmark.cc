// The queue against a mutex and a std::deque, boost::lockfree::queue, and a bounded ring of many producers and consumers
// (Vyukov's). The same 256-byte messages, one run. A full or empty queue makes all of them wait alike.
//
//   tools/bazelw run //devices/hyperv/synic:message_queue_benchmark
//
// Post: nanoseconds a post, nobody consuming meanwhile. Threads, Processes: nanoseconds a message from the first post to the
// last message taken, threads or processes on one side and one consumer on the other. Arguments: payload bytes, producers. The
// counters are nanoseconds a message, the best and the median of many short rounds: on a busy machine the best says most.
#include "devices/hyperv/synic/message_queue.h"

#include <benchmark/benchmark.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/lockfree/queue.hpp>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "devices/hyperv/synic/doorbell.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_copy.h"
#include "devices/hyperv/synic/message_lane.h"
#include "devices/hyperv/synic/post_result.h"

namespace boost {
// What boost asks of those who build without exceptions.
void throw_exception(const std::exception&) { std::abort(); }
void throw_exception(const std::exception&, const source_location&) { std::abort(); }
}  // namespace boost

namespace vmm {
namespace {

constexpr uint32_t kRoom = 1024;  // messages, of all producers
constexpr uint32_t kMessages = 20'000;
constexpr int kRounds = 40;

struct Wait {
  int tries = 0;
  void operator()() {
    if (++tries % 64 != 0) {
      __builtin_ia32_pause();
    } else {
      ::sched_yield();
    }
  }
};

struct SharedMemory {
  explicit SharedMemory(size_t size)
      : bytes(size), data(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0)) {}
  ~SharedMemory() { ::munmap(data, bytes); }
  [[nodiscard]] std::span<std::byte> span() const { return {static_cast<std::byte*>(data), bytes}; }
  size_t bytes;
  void* data;
};

// A rival is its whole state: Shared<Rival> puts it into memory that survives a fork.
template <typename Rival>
class Shared {
 public:
  explicit Shared(uint32_t) : memory_(sizeof(Rival)), rival_(new (memory_.data) Rival) {}
  ~Shared() { rival_->~Rival(); }
  bool Post(uint32_t, const HvMessage& message) { return rival_->Push(message); }
  bool Take(HvMessage& message) { return rival_->Pop(message); }

 private:
  SharedMemory memory_;
  Rival* rival_;
};

// Every producer has room of its own: either its share of the same total, or as much as the rivals' producers have together.
template <bool kShare>
class OurQueue {
 public:
  explicit OurQueue(uint32_t producers)
      : shape_{producers, kShare ? kRoom / producers : kRoom},
        memory_(QueueMap::RegionBytes(shape_)),
        line_(sizeof(DoorbellLine)),
        doorbell_(*static_cast<DoorbellLine*>(line_.data)),
        queue_(MessageQueue::Create(memory_.span(), shape_, doorbell_, 0).value()) {
    for (uint32_t n = 0; n < producers; ++n) {
      producers_.push_back(MessageProducer::Attach(memory_.span(), shape_, n, doorbell_, 0).value());
    }
  }
  bool Post(uint32_t producer, const HvMessage& message) { return IsPosted(producers_[producer].TryPost(message)); }
  bool Take(HvMessage& message) {
    // Polled, as the others are: only a consumer that sleeps takes and arms the doorbell. The posts do ring it.
    const HvMessage* front = queue_->Front();
    if (front == nullptr) return false;
    CopyUsed(message, *front);
    queue_->PopFront();
    return true;
  }

 private:
  QueueShape shape_;
  SharedMemory memory_;
  SharedMemory line_;
  Doorbell doorbell_;
  std::unique_ptr<MessageQueue> queue_;
  std::vector<MessageProducer> producers_;
};

// What a device process has: a lane each, nothing trusted.
class OurLanes {
 public:
  explicit OurLanes(uint32_t producers)
      : queue_memory_(QueueMap::RegionBytes({1, 1})),
        line_(sizeof(DoorbellLine)),
        doorbell_(*static_cast<DoorbellLine*>(line_.data)),
        queue_(MessageQueue::Create(queue_memory_.span(), {1, 1}, doorbell_, 0).value()) {
    const uint32_t capacity = kRoom / producers;
    for (uint32_t n = 0; n < producers; ++n) {
      memory_.push_back(std::make_unique<SharedMemory>(LaneProducer::RegionBytes(capacity)));
      queue_->AttachLane(LaneConsumer::Create(memory_.back()->span(), capacity, n).value()).value();
      producers_.push_back({LaneProducer::Attach(memory_.back()->span(), capacity).value()});
    }
  }
  bool Post(uint32_t producer, const HvMessage& message) { return IsPosted(producers_[producer].lane.TryPost(message)); }
  bool Take(HvMessage& message) {
    const HvMessage* front = queue_->Front();
    if (front == nullptr) {
      // In place of the kick descriptors: ask every lane.
      for (uint32_t n = 0; n < producers_.size(); ++n) benchmark::DoNotOptimize(queue_->Notify(n));
      benchmark::DoNotOptimize(doorbell_.Take());
      front = queue_->Front();
      if (front == nullptr) return false;
    }
    CopyUsed(message, *front);
    queue_->PopFront();
    return true;
  }

 private:
  struct alignas(kCacheLineBytes) Producer {
    LaneProducer lane;
  };
  SharedMemory queue_memory_;
  SharedMemory line_;
  Doorbell doorbell_;
  std::unique_ptr<MessageQueue> queue_;
  std::vector<std::unique_ptr<SharedMemory>> memory_;
  std::vector<Producer> producers_;
};

class MutexDeque {
 public:
  explicit MutexDeque(uint32_t) {}
  bool Post(uint32_t, const HvMessage& message) {
    const std::lock_guard lock(mutex_);
    if (messages_.size() >= kRoom) return false;
    messages_.push_back(message);
    return true;
  }
  bool Take(HvMessage& message) {
    const std::lock_guard lock(mutex_);
    if (messages_.empty()) return false;
    CopyUsed(message, messages_.front());
    messages_.pop_front();
    return true;
  }

 private:
  std::mutex mutex_;
  std::deque<HvMessage> messages_;
};

// A deque does not reach across processes; a ring under a process-shared mutex does.
class MutexRing {
 public:
  MutexRing() {
    pthread_mutexattr_t attributes;
    ::pthread_mutexattr_init(&attributes);
    ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    ::pthread_mutex_init(&mutex_, &attributes);
  }
  bool Push(const HvMessage& message) {
    ::pthread_mutex_lock(&mutex_);
    const bool room = tail_ - head_ < kRoom;
    if (room) CopyUsed(messages_[tail_++ % kRoom], message);
    ::pthread_mutex_unlock(&mutex_);
    return room;
  }
  bool Pop(HvMessage& message) {
    ::pthread_mutex_lock(&mutex_);
    const bool any = tail_ != head_;
    if (any) CopyUsed(message, messages_[head_++ % kRoom]);
    ::pthread_mutex_unlock(&mutex_);
    return any;
  }

 private:
  pthread_mutex_t mutex_;
  uint64_t head_ = 0;
  uint64_t tail_ = 0;
  HvMessage messages_[kRoom];
};

class BoostQueue {
 public:
  bool Push(const HvMessage& message) { return queue_.bounded_push(message); }
  bool Pop(HvMessage& message) { return queue_.pop(message); }

 private:
  boost::lockfree::queue<HvMessage, boost::lockfree::capacity<kRoom>> queue_;
};

// Dmitry Vyukov's bounded MPMC queue, at its best here: a sequence beside each message, lines kept apart, only what is used
// copied, and, as there is one consumer, no compare-and-swap at that end.
class VyukovRing {
 public:
  VyukovRing() {
    for (uint64_t n = 0; n < kRoom; ++n) cells_[n].sequence.store(n, std::memory_order_relaxed);
  }
  bool Push(const HvMessage& message) {
    uint64_t tail = tail_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[tail % kRoom];
      const auto ahead = static_cast<int64_t>(cell.sequence.load(std::memory_order_acquire) - tail);
      if (ahead < 0) return false;
      if (ahead > 0) {
        tail = tail_.load(std::memory_order_relaxed);
      } else if (tail_.compare_exchange_weak(tail, tail + 1, std::memory_order_relaxed)) {
        CopyUsed(cell.message, message);
        cell.sequence.store(tail + 1, std::memory_order_release);
        return true;
      }
    }
  }
  bool Pop(HvMessage& message) {
    Cell& cell = cells_[head_ % kRoom];
    if (cell.sequence.load(std::memory_order_acquire) != head_ + 1) return false;
    CopyUsed(message, cell.message);
    cell.sequence.store(head_ + kRoom, std::memory_order_release);
    ++head_;
    return true;
  }

 private:
  struct alignas(kCacheLineBytes) Cell {
    std::atomic<uint64_t> sequence;
    HvMessage message;
  };
  alignas(kCacheLineBytes) std::atomic<uint64_t> tail_{0};
  alignas(kCacheLineBytes) uint64_t head_ = 0;
  Cell cells_[kRoom];
};

// The same with what a consumer that sleeps needs, and ours has: the ring of its doorbell after each post.
class RungVyukovRing : public VyukovRing {
 public:
  bool Push(const HvMessage& message) {
    if (!VyukovRing::Push(message)) return false;
    std::atomic_thread_fence(std::memory_order_seq_cst);  // publish, then load the doorbell
    benchmark::DoNotOptimize(doorbell_.Ring(0));
    return true;
  }

 private:
  DoorbellLine line_;
  Doorbell doorbell_{line_};
};

HvMessage MessageOf(int64_t payload) {
  HvMessage message{};
  message.header.type = HvMessageType::kVmBus;
  message.header.payload_size = static_cast<uint8_t>(payload);
  return message;
}

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Collects rounds; the destructor reports them.
class Rounds {
 public:
  Rounds(benchmark::State& state, uint32_t messages) : state_(state), messages_(messages) {}
  ~Rounds() {
    if (nanoseconds_.empty()) return;
    std::sort(nanoseconds_.begin(), nanoseconds_.end());
    state_.counters["best_ns"] = nanoseconds_.front();
    state_.counters["median_ns"] = nanoseconds_[nanoseconds_.size() / 2];
    state_.counters["best_M/s"] = 1e3 / nanoseconds_.front();
  }
  void Add(double seconds) {
    state_.SetIterationTime(seconds);
    nanoseconds_.push_back(seconds * 1e9 / messages_);
  }

 private:
  benchmark::State& state_;
  const double messages_;
  std::vector<double> nanoseconds_;
};

template <typename Queue>
void Post(benchmark::State& state) {
  Queue queue(1);
  const HvMessage message = MessageOf(state.range(0));
  HvMessage taken;
  constexpr int kBatch = 512;
  Rounds rounds(state, kBatch);
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    for (int n = 0; n < kBatch; ++n) benchmark::DoNotOptimize(queue.Post(0, message));
    rounds.Add(SecondsSince(start));
    while (queue.Take(taken)) benchmark::DoNotOptimize(taken);
  }
}

// The consumer takes each message before the next: every post is to an empty queue.
template <typename Queue>
void PostAndTake(benchmark::State& state) {
  Queue queue(1);
  const HvMessage message = MessageOf(state.range(0));
  HvMessage taken;
  constexpr int kBatch = 512;
  Rounds rounds(state, kBatch);
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    for (int n = 0; n < kBatch; ++n) {
      benchmark::DoNotOptimize(queue.Post(0, message));
      while (queue.Take(taken)) benchmark::DoNotOptimize(taken);
    }
    rounds.Add(SecondsSince(start));
  }
}

template <typename Queue>
void Produce(Queue& queue, uint32_t producer, uint32_t producers, const HvMessage& message) {
  const uint32_t mine = kMessages / producers + (producer < kMessages % producers ? 1 : 0);
  Wait wait;
  for (uint32_t n = 0; n < mine; ++n) {
    while (!queue.Post(producer, message)) wait();
  }
}

template <typename Queue>
void Consume(Queue& queue) {
  HvMessage taken;
  Wait wait;
  for (uint32_t n = 0; n < kMessages;) {
    if (queue.Take(taken)) {
      benchmark::DoNotOptimize(taken);
      ++n;
    } else {
      wait();
    }
  }
}

template <typename Queue>
void Threads(benchmark::State& state) {
  const auto producers = static_cast<uint32_t>(state.range(1));
  const HvMessage message = MessageOf(state.range(0));
  Queue queue(producers);
  Rounds rounds(state, kMessages);
  for (auto _ : state) {
    std::atomic<bool> go{false};
    std::vector<std::thread> threads;
    for (uint32_t n = 0; n < producers; ++n) {
      threads.emplace_back([&, n] {
        go.wait(false);
        Produce(queue, n, producers, message);
      });
    }
    const auto start = std::chrono::steady_clock::now();
    go.store(true);
    go.notify_all();
    Consume(queue);
    rounds.Add(SecondsSince(start));
    for (std::thread& thread : threads) thread.join();
  }
}

template <typename Queue>
void Processes(benchmark::State& state) {
  const auto producers = static_cast<uint32_t>(state.range(1));
  const HvMessage message = MessageOf(state.range(0));
  const SharedMemory gate(sizeof(std::atomic<uint32_t>));
  auto& ready = *new (gate.data) std::atomic<uint32_t>;
  Rounds rounds(state, kMessages);
  for (auto _ : state) {
    Queue queue(producers);
    ready.store(0);
    for (uint32_t n = 0; n < producers; ++n) {
      if (::fork() == 0) {
        ready.fetch_add(1);
        while (ready.load() <= producers) ::sched_yield();
        Produce(queue, n, producers, message);
        ::_exit(0);
      }
    }
    while (ready.load() < producers) ::sched_yield();
    const auto start = std::chrono::steady_clock::now();
    ready.fetch_add(1);
    Consume(queue);
    rounds.Add(SecondsSince(start));
    for (uint32_t n = 0; n < producers; ++n) ::wait(nullptr);
  }
}

using Ours = OurQueue<true>;
using OursRoomEach = OurQueue<false>;
using BoundedMpmcRung = Shared<RungVyukovRing>;
using BoostLockfree = Shared<BoostQueue>;
using BoundedMpmc = Shared<VyukovRing>;
using SharedMutexRing = Shared<MutexRing>;

#define VMM_POST(how, queue) BENCHMARK_TEMPLATE(how, queue)->Arg(24)->Arg(240)->UseManualTime()->Iterations(2000)
VMM_POST(Post, Ours);
VMM_POST(Post, OurLanes);
VMM_POST(Post, MutexDeque);
VMM_POST(Post, BoostLockfree);
VMM_POST(Post, BoundedMpmc);
VMM_POST(Post, BoundedMpmcRung);
VMM_POST(PostAndTake, Ours);
VMM_POST(PostAndTake, OurLanes);
VMM_POST(PostAndTake, MutexDeque);
VMM_POST(PostAndTake, BoostLockfree);
VMM_POST(PostAndTake, BoundedMpmc);
VMM_POST(PostAndTake, BoundedMpmcRung);

#define VMM_STREAM(how, queue)               \
  BENCHMARK_TEMPLATE(how, queue)             \
      ->ArgsProduct({{24, 240}, {1, 2, 4, 8}}) \
      ->UseManualTime()                      \
      ->Iterations(kRounds)                  \
      ->Unit(benchmark::kMillisecond)
VMM_STREAM(Threads, Ours);
VMM_STREAM(Threads, OursRoomEach);
VMM_STREAM(Threads, OurLanes);
VMM_STREAM(Threads, MutexDeque);
VMM_STREAM(Threads, BoostLockfree);
VMM_STREAM(Threads, BoundedMpmc);
VMM_STREAM(Threads, BoundedMpmcRung);
VMM_STREAM(Processes, Ours);
VMM_STREAM(Processes, OursRoomEach);
VMM_STREAM(Processes, OurLanes);
VMM_STREAM(Processes, SharedMutexRing);
VMM_STREAM(Processes, BoostLockfree);
VMM_STREAM(Processes, BoundedMpmc);
VMM_STREAM(Processes, BoundedMpmcRung);

}  // namespace
}  // namespace vmm
