// Every metric that the daemon exposes: its name and what it means. Dashboards, alert rules and the
// README name these and no others. Base units; counters end in _total.
#ifndef GRADWARDEN_DAEMON_METRICS_NAMES_H_
#define GRADWARDEN_DAEMON_METRICS_NAMES_H_

namespace gradwarden::metrics {

struct MetricName {
  const char* name;
  const char* help;
};

// ---- of a run; label run ----------------------------------------------------------------------
inline constexpr MetricName kGradNorm = {
    "gradwarden_grad_norm", "Global gradient norm of the last step, unscaled and before clipping."};
inline constexpr MetricName kRollingMean = {
    "gradwarden_grad_norm_rolling_mean",
    "Mean of the gradient norm over the last accepted steps; absent during warm-up."};
inline constexpr MetricName kSpikeThreshold = {
    "gradwarden_spike_threshold",
    "Gradient norm above which a step counts as a spike; absent during warm-up."};
inline constexpr MetricName kClipCoefficient = {
    "gradwarden_clip_coefficient",
    "Factor that the guard applied to the gradients of the last step."};
inline constexpr MetricName kPostClipNorm = {
    "gradwarden_post_clip_norm", "Gradient norm of the last step as the optimizer got it."};
inline constexpr MetricName kNormRatio = {
    "gradwarden_grad_norm_ratio",
    "Steps by their gradient norm as a multiple of the rolling mean before them."};
inline constexpr MetricName kGroupNorm = {
    "gradwarden_group_norm",
    "Gradient norm of a group of layers in the last step that has them; of many groups those whose "
    "norm is least like its own average."};
inline constexpr MetricName kRankNormRatio = {
    "gradwarden_rank_norm_ratio",
    "Norm of a rank's own gradient as a multiple of the median of the ranks; of ranks more than 3 "
    "times above or below it, when last observed."};
inline constexpr MetricName kLoss = {"gradwarden_loss", "Training loss of the last step."};
inline constexpr MetricName kLearningRate = {"gradwarden_learning_rate",
                                             "Learning rate of the last step."};
inline constexpr MetricName kLossScale = {"gradwarden_loss_scale", "Loss scale of the last step."};
inline constexpr MetricName kStep = {"gradwarden_step",
                                     "Number of the last reported optimizer step."};
inline constexpr MetricName kSteps = {"gradwarden_steps_total",
                                      "Optimizer steps reported since this daemon started."};
inline constexpr MetricName kClippedSteps = {"gradwarden_clipped_steps_total",
                                             "Steps whose gradients were clipped."};
inline constexpr MetricName kSkippedSteps = {
    "gradwarden_skipped_steps_total", "Steps whose update was skipped; label reason says why."};
inline constexpr MetricName kNonFiniteSteps = {"gradwarden_non_finite_steps_total",
                                               "Steps with NaN or Inf among the gradients."};
inline constexpr MetricName kNoiseScale = {
    "gradwarden_gradient_noise_scale",
    "Noise scale of the gradient in batches of one rank, as last estimated; far above the number "
    "of ranks, a larger batch would train faster."};
inline constexpr MetricName kSignalNorm = {
    "gradwarden_signal_norm",
    "Norm of the tensors beside the gradients (parameters, updates, moments) when last observed, "
    "by signal."};
inline constexpr MetricName kAuditedReplicas = {
    "gradwarden_audited_replicas_total",
    "Stretches of replicated elements that audits compared between ranks."};
inline constexpr MetricName kReplicaMismatches = {
    "gradwarden_replica_mismatches_total",
    "Stretches of replicas declared identical that an audit found to differ."};
inline constexpr MetricName kLastCheckpoint = {
    "gradwarden_last_checkpoint_step", "Highest step of a checkpoint that the run completed."};
inline constexpr MetricName kEvents = {
    "gradwarden_events_total",
    "Incidents found, by kind, severity and likely cause at their begin."};
inline constexpr MetricName kEventOpen = {"gradwarden_event_open",
                                          "Incidents of a kind that have not ended."};
inline constexpr MetricName kLastReport = {
    "gradwarden_last_report_timestamp_seconds",
    "Unix time at which the daemon received the last report of the run."};
inline constexpr MetricName kClientDropped = {
    "gradwarden_client_dropped_reports",
    "Reports that the clients of the current attempt gave up, as they say."};
inline constexpr MetricName kClientPending = {
    "gradwarden_client_pending_reports",
    "Reports that the clients of the current attempt hold unacknowledged, as they say."};
inline constexpr MetricName kRunFinished = {"gradwarden_run_finished",
                                            "1 once the current attempt ended in an orderly way."};

// ---- of the daemon ----------------------------------------------------------------------------
inline constexpr MetricName kBuildInfo = {"gradwarden_build_info", "1, with the version as label."};
inline constexpr MetricName kProcessStart = {"gradwarden_process_start_time_seconds",
                                             "Unix time at which the daemon started."};
inline constexpr MetricName kReceived = {
    "gradwarden_reports_received_total",
    "Reports received: stored, duplicate, rejected and in flight together."};
inline constexpr MetricName kStored = {"gradwarden_reports_stored_total",
                                       "Reports committed to the store."};
inline constexpr MetricName kDuplicate = {"gradwarden_reports_duplicate_total",
                                          "Reports received again and not stored a second time."};
inline constexpr MetricName kRejected = {"gradwarden_reports_rejected_total",
                                         "Reports that break a rule of the contract."};
inline constexpr MetricName kInFlight = {"gradwarden_reports_in_flight",
                                         "Reports received and not yet committed."};
inline constexpr MetricName kLate = {
    "gradwarden_reports_late_total",
    "Stored reports of a step at or before the last judged one, which the detector did not see."};
inline constexpr MetricName kStreams = {"gradwarden_ingest_streams", "Open ingest streams."};
inline constexpr MetricName kStreamsRefused = {"gradwarden_ingest_streams_refused_total",
                                               "Ingest streams ended with an error, by gRPC code."};
inline constexpr MetricName kQueueMessages = {"gradwarden_ingest_queue_messages",
                                              "Messages received and not yet answered."};
inline constexpr MetricName kQueueBytes = {"gradwarden_ingest_queue_bytes",
                                           "Bytes of messages received and not yet answered."};
inline constexpr MetricName kMemory = {
    "gradwarden_ingest_memory_bytes",
    "Memory charged against ingest.memory_bytes, by what it is for: messages or runs."};
inline constexpr MetricName kIngestLag = {
    "gradwarden_ingest_lag_seconds",
    "Time from the arrival of a message with new reports to their commit."};
inline constexpr MetricName kLimited = {
    "gradwarden_limited_total", "How often a limit acted, by the name of its configuration key."};
inline constexpr MetricName kCommits = {"gradwarden_store_commit_seconds",
                                        "Time that a commit of a group of messages took."};
inline constexpr MetricName kStoreErrors = {"gradwarden_store_errors_total",
                                            "Commits that failed and were tried again."};
inline constexpr MetricName kStoreFailing = {"gradwarden_store_failing",
                                             "1 while the store cannot commit."};
inline constexpr MetricName kWatchers = {"gradwarden_event_watchers", "Open streams of events."};
inline constexpr MetricName kDenied = {"gradwarden_requests_denied_total",
                                       "RPCs and HTTP requests refused for what their caller did "
                                       "or did not show, by reason."};
inline constexpr MetricName kReloads = {"gradwarden_reloads_total",
                                        "Configurations read again on SIGHUP and taken over."};
inline constexpr MetricName kStoreBytes = {"gradwarden_store_bytes",
                                           "Bytes of the history in use."};
inline constexpr MetricName kPruned = {
    "gradwarden_store_pruned_reports_total",
    "Reports deleted for their age or for the size of the history."};
inline constexpr MetricName kDamagedFiles = {
    "gradwarden_store_damaged_files_total",
    "Damaged histories that were set aside when the daemon started."};
inline constexpr MetricName kRecovered = {"gradwarden_store_recovered_reports_total",
                                          "Reports recovered from a damaged history."};
inline constexpr MetricName kUnrecovered = {
    "gradwarden_store_unrecovered_rows_total",
    "Rows of a damaged history that could not be recovered."};
inline constexpr MetricName kReloadFailures = {
    "gradwarden_reload_failures_total",
    "Configurations, token files and certificates that were bad, so that the old ones stayed."};
inline constexpr MetricName kCertificateExpires = {
    "gradwarden_tls_certificate_expiry_timestamp_seconds",
    "Unix time at which the daemon's certificate ceases to be valid."};
inline constexpr MetricName kAlertMessages = {
    "gradwarden_alert_messages_total",
    "Alerts sent to a sink, by what became of them: delivered, failed and sent again, or refused."};
inline constexpr MetricName kAlertsWaiting = {
    "gradwarden_alerts_waiting", "Alerts that are due to a sink and that it has not taken."};
inline constexpr MetricName kRunsExposed = {"gradwarden_runs", "Runs shown on this page."};
inline constexpr MetricName kRunsOther = {
    "gradwarden_runs_other", "Attempts in memory that metrics.max_runs left no place for."};

}  // namespace gradwarden::metrics

#endif  // GRADWARDEN_DAEMON_METRICS_NAMES_H_
