/* gradwarden for C: the guard of gradients in host memory, its collectives, and the reporter.
 *
 * Handles are opaque. Each is made by a ..._create function and destroyed, by its owner, by the
 * ..._destroy function of the same name, which takes null too. What a handle was made from (ranks,
 * reporter) outlives it.
 *
 * Every function that can fail returns a gradwarden_status; GRADWARDEN_OK is 0. Nothing throws,
 * exits or prints. gradwarden_last_error() then tells a person what is wrong and what to change.
 *
 * A handle is used by one thread at a time; different handles by any threads. Calls marked
 * "collective" are made by all ranks in the same order.
 *
 * Option structs begin with their size, which their _init macro sets with the defaults, as the
 * program was compiled with it; other structs end with reserved fields, which are 0. So a program
 * compiled against an older header goes on working with a newer library.
 */
#ifndef GRADWARDEN_GRADWARDEN_H_
#define GRADWARDEN_GRADWARDEN_H_

#include <stddef.h>
#include <stdint.h>

#define GRADWARDEN_C_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef enum gradwarden_status {
  GRADWARDEN_OK = 0,
  GRADWARDEN_INVALID_ARGUMENT = 1, /* an argument or option is out of range, or ranks contradict */
  GRADWARDEN_NOT_BOUND = 2,        /* gradwarden_guard_bind comes first */
  GRADWARDEN_BUFFER_TOO_SMALL = 3, /* the size that is needed has been stored */
  GRADWARDEN_INTERNAL = 4          /* out of memory or threads */
} gradwarden_status;

/* The message of the last call that failed on this thread; never null. Valid until the next one. */
GRADWARDEN_C_API const char* gradwarden_last_error(void);

/* "major.minor.patch". */
GRADWARDEN_C_API const char* gradwarden_version(void);

/* ---- ranks ----------------------------------------------------------------------------------- */

typedef struct gradwarden_ranks gradwarden_ranks;

/* A run of one rank. */
GRADWARDEN_C_API gradwarden_status gradwarden_ranks_create_single(gradwarden_ranks** ranks);

/* Gathers `bytes` bytes from every rank into `receive` (size * bytes), in rank order. Returns 0, or
 * anything else if the exchange failed. */
typedef int (*gradwarden_all_gather)(void* context, const void* send, void* receive, size_t bytes);

/* Ranks that exchange through the caller's own function (MPI, sockets, a test's threads). */
GRADWARDEN_C_API gradwarden_status gradwarden_ranks_create(int rank, int size,
                                                           gradwarden_all_gather all_gather,
                                                           void* context, gradwarden_ranks** ranks);
GRADWARDEN_C_API void gradwarden_ranks_destroy(gradwarden_ranks* ranks);

/* ---- reporter -------------------------------------------------------------------------------- */

typedef struct gradwarden_reporter gradwarden_reporter;

typedef struct gradwarden_reporter_options {
  size_t struct_size;
  const char* daemon;       /* host:port of gradwardend; null: nothing is sent */
  const char* run;          /* stable name of the run, at most 128 bytes */
  const char* history_path; /* also keep a local history file here (rank 0); null: none */
  uint64_t backlog_bytes;   /* unacknowledged reports kept in memory */
  uint32_t close_timeout_ms;
  const char* flight_directory; /* write flight recordings here on an event; null: only send them */
  /* For a daemon that asks for TLS and tokens, files in PEM; null: GRADWARDEN_CA_FILE,
     GRADWARDEN_CERT, GRADWARDEN_KEY and GRADWARDEN_TOKEN_FILE, if they are set. */
  const char* ca_file;          /* the daemon's authority */
  const char* certificate_file; /* to show to the daemon */
  const char* key_file;         /* its key */
  const char* token_file;       /* holds the token alone */
  int32_t tls;                  /* not 0: TLS also without ca_file */
  const char* spool_directory;  /* unacknowledged reports on disk too; null: in memory alone */
} gradwarden_reporter_options;

#define gradwarden_reporter_options_init(options) \
  gradwarden_reporter_options_init_sized((options), sizeof *(options))
GRADWARDEN_C_API void gradwarden_reporter_options_init_sized(gradwarden_reporter_options* options,
                                                             size_t size);

/* Collective. Strings are copied. */
GRADWARDEN_C_API gradwarden_status
gradwarden_reporter_create(const gradwarden_reporter_options* options, gradwarden_ranks* ranks,
                           gradwarden_reporter** reporter);
/* The checkpoint of `step` is complete: a state that training can return to. Any thread. */
GRADWARDEN_C_API gradwarden_status
gradwarden_reporter_mark_checkpoint(gradwarden_reporter* reporter, uint64_t step);
/* Waits at most close_timeout_ms for the daemon. */
GRADWARDEN_C_API void gradwarden_reporter_destroy(gradwarden_reporter* reporter);

/* ---- guard ----------------------------------------------------------------------------------- */

typedef struct gradwarden_guard gradwarden_guard;

typedef enum gradwarden_dtype {
  GRADWARDEN_FLOAT64 = 0,
  GRADWARDEN_FLOAT32 = 1,
  GRADWARDEN_BFLOAT16 = 2,
  GRADWARDEN_FLOAT16 = 3
} gradwarden_dtype;

typedef enum gradwarden_clip_rule {
  GRADWARDEN_CLIP_FIXED = 0,        /* max_norm */
  GRADWARDEN_CLIP_ROLLING_MEAN = 1, /* clip_value times the mean of the window */
  GRADWARDEN_CLIP_Z_SCORE = 2,      /* clip_value deviations above the exponential average */
  GRADWARDEN_CLIP_PERCENTILE = 3    /* the clip_value-th percentile of the window */
} gradwarden_clip_rule;

typedef enum gradwarden_spike_action {
  GRADWARDEN_SKIP = 0,
  GRADWARDEN_REDUCE_LEARNING_RATE = 1
} gradwarden_spike_action;

typedef enum gradwarden_fallback {
  GRADWARDEN_APPLY_CLIPPED = 0,
  GRADWARDEN_REQUEST_STOP = 1
} gradwarden_fallback;

/* For the groups whose name matches `pattern` (* and ?); the first rule that matches counts. */
typedef struct gradwarden_group_rule {
  const char* pattern;
  double max_norm;             /* clip the group by its own norm; 0: off */
  double value_limit;          /* clamp its elements to +-this after clipping; 0: off */
  const double* adaptive_clip; /* in place of that of the options; null: as they say */
  uint64_t reserved[4];
} gradwarden_group_rule;

/* The meaning of each is that of the field of the same name in gradwarden/guard.h. 0 turns a limit
 * off. */
typedef struct gradwarden_guard_options {
  size_t struct_size;
  double max_norm;
  int32_t clip_rule; /* a gradwarden_clip_rule */
  double clip_value;
  double norm_type;
  double value_limit;
  const gradwarden_group_rule* group_rules;
  size_t group_rule_count;
  int skip_non_finite;
  double skip_above;
  double skip_above_rolling_mean;
  double skip_above_z;
  double skip_above_robust_z;
  int32_t on_spike; /* a gradwarden_spike_action */
  double least_learning_rate_factor;
  uint32_t window;
  uint32_t warmup;
  double ema_decay;
  uint32_t level_shift_after;
  uint32_t max_consecutive_skips;
  int32_t fallback; /* a gradwarden_fallback */
  int shadow;
  uint32_t threads;
  double adaptive_clip;
  double adaptive_clip_least_norm;
  uint32_t local_every;
  uint32_t audit_every;
  uint32_t observe_others_every;
  int flight_recorder;
  double audit_tolerance;
} gradwarden_guard_options;

#define gradwarden_guard_options_init(options) \
  gradwarden_guard_options_init_sized((options), sizeof *(options))
GRADWARDEN_C_API void gradwarden_guard_options_init_sized(gradwarden_guard_options* options,
                                                          size_t size);

/* A part of one tensor that this rank holds, contiguous in memory: elements offset to offset +
 * count of the whole tensor, or, where `dimensions` is not 0, of the row-major order of the box
 * [start, start + extent) of a tensor of this shape. */
typedef struct gradwarden_shard {
  const char* name;     /* the same on every rank that holds part of the tensor */
  const char* group;    /* tensors of a group share statistics and rules; null: the name */
  void* data;           /* host memory, any alignment; may be null if count is 0 */
  uint64_t count;       /* elements in this shard */
  uint64_t total_count; /* elements of the whole tensor; 0: count, the tensor is not sharded */
  uint64_t offset;      /* of the first element, in the whole tensor or in the box */
  int32_t dtype;        /* a gradwarden_dtype */
  uint32_t dimensions;  /* of the arrays below, at most 8; 0: flat */
  const uint64_t* shape;
  const uint64_t* start;  /* null: 0 in each dimension */
  const uint64_t* extent; /* null: shape */
  uint32_t replicas;      /* on how many ranks its elements are, for bind to check; 0: derived */
  int32_t identical;      /* 1: the replicas promise equal bits, audits compare them exactly */
  uint64_t reserved[4];
} gradwarden_shard;

/* A named list of tensors beside the gradients: updates, moments of an optimizer. */
typedef struct gradwarden_tensor_list {
  const char* name;
  const gradwarden_shard* shards;
  size_t shard_count;
  uint64_t reserved[4];
} gradwarden_tensor_list;

/* All that a guard reads; set struct_size to sizeof and leave out what there is not. */
typedef struct gradwarden_bindings {
  size_t struct_size;
  const gradwarden_shard* gradients; /* reduced: what a step reads and scales */
  size_t gradient_count;
  const gradwarden_shard* local; /* this rank's own, before the reduction */
  size_t local_count;
  const gradwarden_shard* parameters; /* never written */
  size_t parameter_count;
  const gradwarden_tensor_list* others; /* never written */
  size_t other_count;
} gradwarden_bindings;

typedef enum gradwarden_decision {
  GRADWARDEN_DECISION_APPLY = 1,
  GRADWARDEN_DECISION_CLIP = 2,
  GRADWARDEN_DECISION_REDUCE = 3,
  GRADWARDEN_DECISION_SKIP = 4
} gradwarden_decision;

typedef enum gradwarden_reason {
  GRADWARDEN_WITHIN_LIMITS = 1,
  GRADWARDEN_MAX_NORM = 2,
  GRADWARDEN_NON_FINITE = 3,
  GRADWARDEN_LOSS_SCALE_OVERFLOW = 4,
  GRADWARDEN_ABSOLUTE_LIMIT = 5,
  GRADWARDEN_ROLLING_MEAN = 6,
  GRADWARDEN_SKIP_LIMIT = 7,
  GRADWARDEN_COLLECTIVE_FAILED = 8,
  GRADWARDEN_Z_SCORE = 9,
  GRADWARDEN_ROBUST_Z_SCORE = 10,
  GRADWARDEN_GROUP_MAX_NORM = 11,
  GRADWARDEN_ADAPTIVE_CLIP = 12
} gradwarden_reason;

/* A word for logs: "clip", "rolling_mean". */
GRADWARDEN_C_API const char* gradwarden_decision_name(int32_t decision);
GRADWARDEN_C_API const char* gradwarden_reason_name(int32_t reason);

/* Zero-initialise it, then set what is known. */
typedef struct gradwarden_step_input {
  uint64_t step;
  const double* loss;          /* null: not known */
  const double* learning_rate; /* null: not known */
  const double* loss_scale;    /* the factor that the gradients carry; null: none */
  const char* const* batch_ids;
  size_t batch_id_count;
  uint64_t reserved[4];
} gradwarden_step_input;

typedef struct gradwarden_step_outcome {
  gradwarden_decision decision;
  gradwarden_reason reason;
  double grad_norm; /* unscaled, pre-clip, global; NaN if non-finite */
  double clip_coefficient;
  double learning_rate_factor; /* multiply this step's learning rate by it */
  uint32_t clipped_groups;
  int should_update;        /* 0: do not step the optimizer, so that its state stays as it is */
  int stop_requested;       /* 1: the bound on skips is used up and fallback is REQUEST_STOP */
  uint32_t clipped_tensors; /* by adaptive clipping */
  uint64_t reserved[4];
} gradwarden_step_outcome;

/* `reporter` may be null. Options and their strings are copied. */
GRADWARDEN_C_API gradwarden_status gradwarden_guard_create(const gradwarden_guard_options* options,
                                                           gradwarden_ranks* ranks,
                                                           gradwarden_reporter* reporter,
                                                           gradwarden_guard** guard);
GRADWARDEN_C_API void gradwarden_guard_destroy(gradwarden_guard* guard);

/* Collective: also with arguments that are wrong on this rank alone, so that all ranks hear of it.
 * Declares what steps read and scale; fails alike on every rank. `local` (may be null)
 * declares this rank's own whole gradients before the reduction. Descriptions are copied; the data
 * outlives the binding. */
GRADWARDEN_C_API gradwarden_status gradwarden_guard_bind(gradwarden_guard* guard,
                                                         const gradwarden_shard* shards,
                                                         size_t shard_count,
                                                         const gradwarden_shard* local,
                                                         size_t local_count);

/* The same with parameters and other tensors. */
GRADWARDEN_C_API gradwarden_status gradwarden_guard_bind_all(gradwarden_guard* guard,
                                                             const gradwarden_bindings* bindings);

/* Takes statistics of the local gradients, before the reduction, in every local_every-th step. */
GRADWARDEN_C_API gradwarden_status gradwarden_guard_observe_local(gradwarden_guard* guard);

/* Collective. Reads the reduced gradients once, decides, and clips in place or leaves them alone.
 */
GRADWARDEN_C_API gradwarden_status gradwarden_guard_step(gradwarden_guard* guard,
                                                         const gradwarden_step_input* input,
                                                         gradwarden_step_outcome* outcome);

/* Writes what decides (windows, averages, counters) to `bytes`. `*size` is the room there and
 * becomes the size needed; with too little room, or null `bytes`, GRADWARDEN_BUFFER_TOO_SMALL. */
GRADWARDEN_C_API gradwarden_status gradwarden_guard_save_state(const gradwarden_guard* guard,
                                                               void* bytes, size_t* size);
/* The guard then decides, bit for bit, as the saved one would have. Changes nothing if it fails. */
GRADWARDEN_C_API gradwarden_status gradwarden_guard_restore_state(gradwarden_guard* guard,
                                                                  const void* bytes, size_t size);

#ifdef __cplusplus
}
#endif

#endif /* GRADWARDEN_GRADWARDEN_H_ */
