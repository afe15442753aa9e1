// Messages over a byte stream (a Unix or TCP socket).
//
// A frame is 8 bytes header (kind << 56 | payload length, little-endian), the payload, and one
// commit byte: 1 when the message counts. A sender that has to give up halfway, because its
// deadline passed or a signal came, later fills the rest of the frame with zeros; the receiver
// reads a commit byte of 0 and drops it. So a send that did not succeed delivers nothing, and the
// link goes on (docs/decisions/0003).
//
// A method takes part of one direction only; the caller holds `sending` or `receiving` around it.
// No method blocks unless it takes a Deadline.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "directions.hpp"
#include "doorbell.hpp"
#include "interruption.hpp"
#include "limits.hpp"
#include "spin.hpp"
#include "status.hpp"

namespace proclink {

class StreamChannel : public Directions {
 public:
  static constexpr bool kInPlace = false;
  // A payload up to this length is copied behind its header and sent in one piece; above, the
  // kernel gathers it from where it lies.
  static constexpr std::size_t kCopied = 4 * 1024;

  // Takes ownership of a connected socket in blocking mode.
  StreamChannel(int socket, const Limits& limits, Interruption interruption);
  ~StreamChannel();
  StreamChannel(const StreamChannel&) = delete;
  StreamChannel& operator=(const StreamChannel&) = delete;

  // --- sending -----------------------------------------------------------------------------------

  // Sends if the socket takes the whole frame at once. After timed_out the caller goes on with
  // send() and the same message, which may lie partly in the socket.
  Status try_send(const void* message, std::size_t length);
  // Sends, waiting for the socket. After anything but ok, nothing of the message will be delivered.
  Status send(const void* message, std::size_t length, Deadline deadline);

  // Adds a frame to the batch; timed_out when it does not fit.
  Status put(const void* message, std::size_t length);
  // Sends the batch. After anything but ok, the last unflushed() messages will not be delivered.
  Status flush(Deadline deadline);
  std::size_t unflushed() const { return frame_ends_.size(); }

  // --- receiving ---------------------------------------------------------------------------------

  // ok when the next message has begun to arrive; timed_out when none is at hand.
  Status poll_message() { return message_begun_ ? Status::ok : begin_message(); }
  Status wait_message(Deadline deadline);

  std::uint64_t message_length() const { return length_; }
  // True when the whole message lies in one piece at message_data().
  bool message_complete() const { return complete_; }
  const std::byte* message_data() const { return buffer_.get() + start_; }
  // Ends a complete message.
  void consume() {
    message_begun_ = complete_ = false;
    start_ += static_cast<std::size_t>(length_) + kCommitByte;
  }
  // Copies the message to `destination`, which must stay the same until this is ok or anything but
  // timed_out and interrupted. `restart`: the peer gave the message up; poll again.
  Status read_message(std::byte* destination, Deadline deadline, bool& restart);
  std::uint64_t copied() const { return copied_; }
  // What was copied of the message cannot be kept until the next call. False when it is gone for good:
  // the channel is broken then.
  bool forget_copied() {
    if (copied_ == 0) return true;
    ended_.store(corrupt("no memory to keep the part of a message that came in time"),
                 std::memory_order_relaxed);
    message_begun_ = complete_ = false;
    return false;
  }
  // Whether the last thing the peer sent, received or not yet, is its goodbye.
  bool goodbye_is_waiting() const;

  // --- both --------------------------------------------------------------------------------------

  bool peer_alive();
  // What a sender asks that has heard that the peer is gone (peer_lost), out of its turn: did the
  // peer mean it? That stands in the other direction, and is what whoever receives there is told.
  Status how_it_ended();
  // Wakes every waiter, waits until nobody is inside, says goodbye and lets go of every handle.
  // Where the calling thread is itself inside, the latter is left to finish_close(). Waits up to the
  // deadline for the socket to take the rest of a frame that was begun, and the goodbye; interrupted
  // when it waited no longer for that reason, and closed all the same.
  Status close(Deadline goodbye = Deadline::immediate());
  void finish_close();
  // For a forked child: closes its copy of the socket without a word to the peer.
  void abandon();
  int handle() const { return socket_; }
  const char* violation() const { return violation_; }
  int last_error() const { return last_error_; }

 private:
  enum class FrameKind : std::uint8_t { data = 1, goodbye = 2 };
  static constexpr std::size_t kFrameHeader = 8;
  static constexpr std::size_t kCommitByte = 1;
  static constexpr std::size_t kBuffer = 64 * 1024;
  // At least this much of a payload missing: it is received straight into its destination.
  static constexpr std::size_t kDirect = 16 * 1024;

  // How long to pause between two looks of a spin: each takes the socket's locks from the sender.
  // Whoever has sent something waits for the answer and looks all the time; whoever only listens
  // looks less often and then receives several messages with one call.
  static constexpr int kPausesForAnswer = 1;
  static constexpr int kPausesForMessage = 64;

  static std::uint64_t header_of(std::uint64_t length, FrameKind kind = FrameKind::data) {
    return (std::uint64_t{static_cast<std::uint8_t>(kind)} << 56) | length;
  }
  static std::size_t make_frame(std::byte* where, FrameKind kind, const void* payload, std::size_t length);
  Status begin_message();
  Status parse();
  Status receive(std::byte* direct, std::size_t length, Deadline deadline, std::size_t& direct_count);
  long receive_now(std::byte* direct, std::size_t length, bool block);
  Status wait_to_send(Deadline deadline);
  void give_up(std::uint64_t header, std::size_t sent, std::size_t total);
  Status settle(Deadline deadline);
  Status end_close(Interruption interruption, Deadline patience);
  Status say_goodbye(Interruption interruption, bool& receiving_taken);
  Status write_goodbye();
  int closing_bell();
  void release_handles();
  bool is_tcp() const;
  Status linger(Interruption interruption);
  void discard_input();
  Status write(const std::byte* bytes, std::size_t length, Deadline deadline, std::size_t& sent);
  Status send_failed(int error);
  Status receive_failed(long count);
  Status no_resources(int error) {
    last_error_ = error;
    return Status::no_resources;
  }
  Status usable() const { return ended_.load(std::memory_order_relaxed); }
  Status ended(int error);
  Status corrupt(const char* violation) {
    violation_ = violation;
    return Status::corrupt;
  }

  int socket_;
  const Limits limits_;
  const Interruption interruption_;

  // sending
  std::unique_ptr<std::byte[]> scratch_;  // one small frame, or a batch
  std::size_t batched_ = 0;               // bytes of the batch
  std::vector<std::uint32_t> frame_ends_;  // where each frame of the batch ends
  std::size_t begun_ = 0;                 // bytes of the current frame already in the socket
  std::uint64_t unsent_ = 0;              // bytes owed to a frame that was given up
  std::size_t unsent_header_ = 0;         // how many of them belong to its header
  std::byte given_up_[kFrameHeader] = {};  // that header
  std::size_t goodbye_sent_ = 0;           // bytes of the goodbye already in the socket
  bool goodbye_tried_ = false;
  // Wakes the sender that waits for the socket, without a word to the peer; made by the first one
  // that does. A shutdown would wake it too, and fail the peer's sends before the goodbye is there.
  Doorbell closing_bell_;
  std::atomic<bool> has_closing_bell_{false};
  AdaptiveSpin send_spin_;

  // receiving
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t start_ = 0;  // received and not yet consumed: [start_, end_)
  std::size_t end_ = 0;
  std::uint64_t length_ = 0;
  std::uint64_t copied_ = 0;
  bool message_begun_ = false;
  bool complete_ = false;
  bool goodbye_ = false;
  std::atomic<Status> ended_{Status::ok};  // how the stream ended, once the receiver saw its end
  std::atomic<bool> asked_in_vain_{false};  // how it ended, while somebody stayed in the other direction
  std::atomic<bool> has_sent_{false};  // since the last wait for a message; a hint only
  AdaptiveSpin receive_spin_;

  const char* violation_ = "";
  std::atomic<int> last_error_{0};
  std::mutex handles_;  // between those that let go of the socket and peer_alive()
};

}  // namespace proclink
