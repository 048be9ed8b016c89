// The training text as character indices, cut into parallel streams.
#ifndef GRADWARDEN_EXAMPLES_CHAR_LSTM_TEXT_H_
#define GRADWARDEN_EXAMPLES_CHAR_LSTM_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace char_lstm {

// Inputs and targets of one truncated sequence for each of a rank's streams, time-major:
// [length][batch].
struct Batch {
  std::vector<int> inputs;
  std::vector<int> targets;
  bool starts_stream = false;  // the hidden state starts at zero
  std::uint64_t chunk = 0;     // which part of the streams: its identifier
};

class Text {
 public:
  // Reads the files; throws std::runtime_error with one line if one is unreadable or all are too
  // short. 5 % of it, in slices from all over, is held out for evaluation.
  explicit Text(const std::vector<std::string>& paths);

  int vocabulary() const { return static_cast<int>(characters_.size()); }
  std::size_t size() const { return train_.size() + held_out_.size(); }

  // What rank `rank` of `world_size` reads in a step: its `batch` streams start at equal distances
  // in the text.
  Batch batch(std::uint64_t step, int rank, int world_size, int batch, int length) const;
  // The same over the held-out part, for a single reader; `chunks` says how many there are.
  Batch held_out(std::uint64_t chunk, int batch, int length) const;
  std::uint64_t held_out_chunks(int batch, int length) const;

 private:
  static Batch cut(const std::vector<int>& text, std::uint64_t chunk, int first, int streams,
                   int batch, int length);
  std::vector<int> train_;
  std::vector<int> held_out_;
  std::string characters_;
};

// The licence texts that every Debian system has, sorted; links are left out, they repeat other
// files.
std::vector<std::string> default_texts();

}  // namespace char_lstm

#endif  // GRADWARDEN_EXAMPLES_CHAR_LSTM_TEXT_H_
