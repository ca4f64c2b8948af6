package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/cmd/muster/internal/rayjobs"
	"github.com/muster-gpu/muster/internal/ids"
)

// Ray's words for how a job stands.
const (
	jobSucceeded = "SUCCEEDED"
	jobFailed    = "FAILED"
	jobStopped   = "STOPPED"
)

const skippedNamed = 5

func (a *App) job() *cobra.Command {
	return noun("job", groupCustomer, "Run Ray jobs on a cluster", a.jobSubmit(), a.jobLs(), a.jobLogs(), a.jobStop())
}

type submitFlags struct {
	workingDir, name string
	excludes, pip    []string
	env              []string
	gpus, cpus       float64
	follow, wait     bool
	timeout          time.Duration
}

func (a *App) jobSubmit() *cobra.Command {
	var flags submitFlags
	cmd := &cobra.Command{
		Use: "submit CLUSTER -- COMMAND...", Short: "Run a command on a cluster as a Ray job",
		Long: "Uploads the working directory, without what .gitignore and .rayignore exclude, and runs the command in it on the cluster. One\n" +
			"argument is taken as a line for the shell, several as words. Prints the job's id, or with --follow what the job prints.\n\n" +
			"With --follow or --wait it exits with 0 if the job succeeded, 100 if it failed, 103 if it was stopped, 101 if it goes on\n" +
			"(Ctrl-C), 124 when the time is up.",
		Example: "muster job submit demo --working-dir . --follow -- python job.py", ValidArgsFunction: a.completeClusters(0),
		Args: func(cmd *cobra.Command, arguments []string) error {
			if len(arguments) < 2 || cmd.ArgsLenAtDash() == 0 || cmd.ArgsLenAtDash() > 1 {
				return errors.New("name one cluster, then the command after --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, arguments []string) error {
			return a.submit(cmd.Context(), arguments[0], entrypoint(arguments[1:]), flags)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.workingDir, "working-dir", "", "folder to upload and run the command in")
	f.StringSliceVar(&flags.excludes, "exclude", nil, "leave this out of the upload; a pattern as in .gitignore (repeatable)")
	f.StringSliceVar(&flags.pip, "pip", nil, "Python package that the job needs (repeatable)")
	f.StringArrayVar(&flags.env, "env", nil, "NAME=VALUE for the job's environment; NAME alone takes the value from here (repeatable)")
	f.StringVar(&flags.name, "name", "", "id of the job (default: Ray makes one)")
	f.Float64Var(&flags.gpus, "num-gpus", 0, "GPUs for the command itself, beside those of its tasks")
	f.Float64Var(&flags.cpus, "num-cpus", 0, "CPUs for the command itself, beside those of its tasks")
	f.BoolVarP(&flags.follow, "follow", "f", false, "print what the job prints until it ends")
	f.BoolVarP(&flags.wait, "wait", "w", false, "wait until the job ends")
	f.DurationVar(&flags.timeout, "timeout", 0, "with --follow or --wait: how long; 0: as long as it takes")
	_ = cmd.MarkFlagDirname("working-dir")
	return cmd
}

// entrypoint makes the line that Ray gives to a shell: one argument is such a line already.
func entrypoint(arguments []string) string {
	if len(arguments) == 1 {
		return arguments[0]
	}
	words := make([]string, len(arguments))
	for i, argument := range arguments {
		words[i] = quote(argument)
	}
	return strings.Join(words, " ")
}

func (a *App) submit(ctx context.Context, cluster, command string, flags submitFlags) error {
	submission := rayjobs.Submission{
		Entrypoint: command, SubmissionID: flags.name, EntrypointNumGPUs: flags.gpus, EntrypointNumCPUs: flags.cpus,
		RuntimeEnv: rayjobs.RuntimeEnv{Pip: flags.pip},
	}
	var err error
	if submission.RuntimeEnv.EnvVars, err = variables(flags.env, os.LookupEnv); err != nil {
		return err
	}
	var upload *rayjobs.Package
	if flags.workingDir != "" {
		if upload, err = a.pack(flags.workingDir, flags.excludes); err != nil {
			return err
		}
		submission.RuntimeEnv.WorkingDir = upload.URI()
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	id, err := a.clusterID(ctx, api, cluster)
	if err != nil {
		return err
	}
	ray, err := a.ray(ctx, api, id)
	if err != nil {
		return err
	}
	if upload != nil {
		if err := a.upload(ctx, ray, upload); err != nil {
			return err
		}
	}
	job, err := ray.Submit(ctx, submission)
	if err != nil {
		return err
	}
	switch {
	case flags.follow:
		a.say("Job %s is submitted.", job)
		return a.followJob(ctx, api, id, job, flags.timeout)
	case flags.wait:
		a.say("Job %s is submitted.", job)
		return a.waitForJob(ctx, api, id, job, flags.timeout)
	}
	a.say("Submitted. Its output: `muster job logs %s %s --follow`", cluster, job)
	return a.printer().Print(map[string]string{"id": job, "cluster_id": id.String()}, []string{job}, func(p *output.Page) { p.Line("%s", job) })
}

func variables(settings []string, lookup func(string) (string, bool)) (map[string]string, error) {
	env := make(map[string]string, len(settings))
	for _, setting := range settings {
		name, value, given := strings.Cut(setting, "=")
		if !given {
			var found bool
			if value, found = lookup(name); !found {
				return nil, fail(exitUsage, "--env %s: there is no such variable here; write %s=VALUE", name, name)
			}
		}
		env[name] = value
	}
	return env, nil
}

func (a *App) pack(folder string, excludes []string) (*rayjobs.Package, error) {
	upload, err := rayjobs.Pack(folder, excludes)
	if err != nil {
		return nil, err
	}
	if skipped := upload.Skipped; len(skipped) > 0 {
		more := ""
		if len(skipped) > skippedNamed {
			more = fmt.Sprintf(" and %d more", len(skipped)-skippedNamed)
		}
		a.say("Left out, being links to folders or to nothing: %s%s", strings.Join(skipped[:min(skippedNamed, len(skipped))], ", "), more)
	}
	return upload, nil
}

func (a *App) upload(ctx context.Context, ray *rayjobs.Client, upload *rayjobs.Package) error {
	began := a.Now()
	sent, err := ray.Upload(ctx, upload)
	if err != nil {
		return fmt.Errorf("upload the working directory: %w", err)
	}
	size := fmt.Sprintf("%d files, %.1f KiB", upload.Files, float64(len(upload.Zip))/(1<<10))
	if sent {
		a.say("Uploaded the working directory: %s in %s.", size, output.Duration(a.Now().Sub(began)))
	} else {
		a.say("The cluster has this working directory already: %s.", size)
	}
	return nil
}

// ray makes a client of the cluster's own Ray, with a fresh token.
func (a *App) ray(ctx context.Context, api *client.Client, id ids.Cluster) (*rayjobs.Client, error) {
	token, err := rayToken(ctx, api, id)
	if err != nil {
		return nil, err
	}
	return rayjobs.New(token.Env["RAY_API_SERVER_ADDRESS"], token.Token, a.Transport), nil
}

// followJob prints a job's output to the end and returns by its status. A stream that breaks is taken up where it broke.
func (a *App) followJob(ctx context.Context, api *client.Client, cluster ids.Cluster, job string, timeout time.Duration) error {
	printed, broken := int64(0), 0
	var last apiv1.Job
	err := a.waitFor(ctx, timeout, func(ctx context.Context) (bool, error) {
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		var err error
		if last, err = getJob(ctx, api, cluster, job); err != nil {
			return false, err
		}
		ray, err := a.ray(ctx, api, cluster)
		if err != nil {
			return false, err
		}
		before := printed
		printed, err = ray.Follow(ctx, job, a.Out, printed)
		if errors.Is(err, context.DeadlineExceeded) {
			return false, errTimedOut
		}
		whole := err == nil
		if whole || printed > before {
			broken = 0
		} else if broken++; rayjobs.Ended(last.Status) {
			return true, a.printLogs(ctx, api, cluster, job, printed) // the stream is gone with its node, the logs may not be
		} else if broken > maxFailedLooks {
			return false, err
		}
		if last, err = getJob(ctx, api, cluster, job); err != nil {
			return false, err
		}
		return whole && rayjobs.Ended(last.Status), nil // of a broken one the rest is still to come
	})
	return a.jobEnd(cluster, last, job, timeout, err)
}

func (a *App) waitForJob(ctx context.Context, api *client.Client, cluster ids.Cluster, id string, timeout time.Duration) error {
	var job apiv1.Job
	told := ""
	err := a.waitFor(ctx, timeout, func(ctx context.Context) (bool, error) {
		var err error
		if job, err = getJob(ctx, api, cluster, id); err != nil {
			return false, err
		}
		if job.Status != told {
			told = job.Status
			a.say("%s  %s", a.Now().UTC().Format("15:04:05Z"), strings.ToLower(told))
		}
		return rayjobs.Ended(job.Status), nil
	})
	if err == nil {
		if err := a.printJobs([]apiv1.Job{job}); err != nil {
			return err
		}
	}
	return a.jobEnd(cluster, job, id, timeout, err)
}

// jobEnd turns how a job ended, or why it is not waited for any more, into what people and scripts are told.
func (a *App) jobEnd(cluster ids.Cluster, job apiv1.Job, id string, timeout time.Duration, err error) error {
	again := fmt.Sprintf("`muster job logs %s %s --follow`", cluster, id)
	switch {
	case errors.Is(err, context.Canceled):
		return fail(exitJobGoesOn, "detached: the job goes on. Come back with %s, end it with `muster job stop %s %s`", again, cluster, id)
	case errors.Is(err, errTimedOut):
		return fail(exitTimeout, "after %s the job is not done. It goes on: %s", output.Duration(timeout), again)
	case err != nil:
		return err
	}
	switch job.Status {
	case jobFailed:
		// Ray puts the end of the output behind the reason.
		reason, _, _ := strings.Cut(firstLine(job.Message), ", last available logs")
		return fail(exitJobFailed, "job %s failed: %s\nIts output: `muster job logs %s %s`", id, first(reason, "Ray gives no reason"), cluster, id)
	case jobStopped:
		return fail(exitJobStopped, "job %s was stopped", id)
	}
	if job.Status == jobSucceeded {
		a.say("Job %s succeeded.", id)
	}
	return nil
}

func getJobs(ctx context.Context, api *client.Client, cluster ids.Cluster) ([]apiv1.Job, error) {
	var jobs apiv1.List[apiv1.Job]
	err := api.Get(ctx, "/v1/clusters/"+cluster.String()+"/jobs", nil, &jobs)
	return jobs.Items, err
}

func getJob(ctx context.Context, api *client.Client, cluster ids.Cluster, id string) (apiv1.Job, error) {
	jobs, err := getJobs(ctx, api, cluster)
	if err != nil {
		return apiv1.Job{}, err
	}
	for _, job := range jobs {
		if job.ID == id {
			return job, nil
		}
	}
	return apiv1.Job{}, fail(exitJobNotFound, "there is no job %q on cluster %s: `muster job ls %s` lists them", id, cluster, cluster)
}

// pickJob finds the job that an argument names by its id or the beginning of it; without an argument the newest.
func pickJob(ctx context.Context, api *client.Client, cluster ids.Cluster, arguments []string) (apiv1.Job, error) {
	jobs, err := getJobs(ctx, api, cluster)
	if err != nil {
		return apiv1.Job{}, err
	}
	if len(arguments) == 0 {
		if len(jobs) == 0 {
			return apiv1.Job{}, fail(exitJobNotFound, "no job has run on cluster %s: `muster job submit` runs one", cluster)
		}
		return jobs[0], nil
	}
	job, err := pick("job", "job ls", arguments[0], jobs, func(j apiv1.Job) string { return j.ID }, func(apiv1.Job) string { return "" }, func(apiv1.Job) bool { return true })
	if err != nil && exitCode(err) == exitFailed {
		return job, fail(exitJobNotFound, "there is no job %q on cluster %s: `muster job ls %s` lists them", arguments[0], cluster, cluster)
	}
	return job, err
}

func (a *App) jobLs() *cobra.Command {
	return a.clusterCommand("ls", "List a cluster's jobs, newest first", "muster job ls demo",
		func(ctx context.Context, api *client.Client, id ids.Cluster) error {
			jobs, err := getJobs(ctx, api, id)
			if err != nil {
				return err
			}
			return a.printJobs(jobs)
		})
}

func (a *App) printJobs(jobs []apiv1.Job) error {
	printer := a.printer()
	rows := make([][]output.Cell, len(jobs))
	for i, j := range jobs {
		age, took := "-", "-"
		if j.StartedAt != nil {
			until := printer.Now
			if j.EndedAt != nil {
				until = *j.EndedAt
			}
			age, took = printer.Age(*j.StartedAt), output.Duration(until.Sub(*j.StartedAt))
		}
		rows[i] = []output.Cell{
			output.Text(j.ID), output.State(j.Status), output.Text(age), output.Text(took), output.Text(oneLine(j.Entrypoint)), output.Text(oneLine(j.Message)),
		}
	}
	return printer.Print(jobs, namesOf(jobs, func(j apiv1.Job) string { return j.ID }), func(p *output.Page) {
		if len(jobs) == 0 {
			a.say("No job has run on this cluster: `muster job submit` runs one.")
			return
		}
		p.Table([]output.Column{
			{Head: "JOB"},
			{Head: "STATUS"},
			{Head: "AGE", Right: true},
			{Head: "TOOK", Right: true},
			{Head: "COMMAND", Shrink: true},
			{Head: "MESSAGE", Wide: true, Shrink: true},
		}, rows)
	})
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// jobCommand is a command on one job of a cluster.
func (a *App) jobCommand(use, short, example string, least int, act func(context.Context, *client.Client, ids.Cluster, apiv1.Job) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.RangeArgs(least, 2), ValidArgsFunction: a.completeClusterJobs,
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			cluster, err := a.clusterID(cmd.Context(), api, arguments[0])
			if err != nil {
				return err
			}
			job, err := pickJob(cmd.Context(), api, cluster, arguments[1:])
			if err != nil {
				return err
			}
			return act(cmd.Context(), api, cluster, job)
		},
	}
}

func (a *App) jobLogs() *cobra.Command {
	var follow bool
	var timeout time.Duration
	cmd := a.jobCommand("logs CLUSTER [JOB]", "Print what a job has printed; without JOB the newest one", "muster job logs demo --follow", 1,
		func(ctx context.Context, api *client.Client, cluster ids.Cluster, job apiv1.Job) error {
			if follow {
				return a.followJob(ctx, api, cluster, job.ID, timeout)
			}
			return a.printLogs(ctx, api, cluster, job.ID, 0)
		})
	cmd.Long = "Prints the end of a job's output, or with --follow all of it as it comes. With --follow it exits by the job's status: 0 if it\n" +
		"succeeded, 100 if it failed, 103 if it was stopped, 101 if it goes on (Ctrl-C), 124 when the time is up."
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "all of it, until the job ends")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "with --follow: how long; 0: as long as it takes")
	return cmd
}

// printLogs prints the end of what a job has printed, without the first skip bytes of all of it.
func (a *App) printLogs(ctx context.Context, api *client.Client, cluster ids.Cluster, job string, skip int64) error {
	var logs apiv1.JobLogs
	if err := api.Get(ctx, "/v1/clusters/"+cluster.String()+"/jobs/"+job+"/logs", nil, &logs); err != nil {
		return err
	}
	if logs.Truncated {
		a.say("Only the end of it; all: `muster job logs %s %s --follow`", cluster, job)
	}
	if !a.printer().ForPeople() {
		return a.printer().Print(logs, []string{job}, nil)
	}
	rest := logs.Logs
	if !logs.Truncated {
		rest = rest[min(skip, int64(len(rest))):]
	}
	_, err := io.WriteString(a.Out, rest)
	return err
}

func (a *App) jobStop() *cobra.Command {
	return a.jobCommand("stop CLUSTER JOB", "Stop a job", "muster job stop demo raysubmit_8tVWDhnPmpGzcSTm", 2,
		func(ctx context.Context, api *client.Client, cluster ids.Cluster, job apiv1.Job) error {
			if err := api.Do(ctx, http.MethodPost, "/v1/clusters/"+cluster.String()+"/jobs/"+job.ID+"/stop", nil, nil, nil, &job); err != nil {
				return err
			}
			a.say("Asked job %s to stop.", job.ID)
			return a.printJobs([]apiv1.Job{job})
		})
}
