package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/profile"

	"github.com/muster-gpu/muster/scheduler/placement"
)

const (
	gpuResource = corev1.ResourceName("nvidia.com/gpu")
	modelLabel  = "gpu-model"
	priceLabel  = "price"
	podsPerNode = 110 // the kubelet's default
	scoreAll    = 100 // percentageOfNodesToScore
)

// kube is kube-scheduler without an API server: its own cache, plugins and default profile, called for one pod at a time. What
// a booking would cost beside that (the queue, the permit and bind stages, etcd) is left out, in its favour.
type kube struct {
	label  string
	ctx    context.Context // its methods want the one that it was made with
	logger klog.Logger
	sched  *scheduler.Scheduler
	fwk    framework.Framework
	places map[string]int // by node name

	pods    []*corev1.Pod // of the booking that was prepared
	assumed []*corev1.Pod // of them, on their nodes
}

// newKube fills a scheduler's cache with the fleet. percent is percentageOfNodesToScore, 0 for its default: fewer of a larger
// fleet.
func newKube(ctx context.Context, label string, fleet []placement.Host, percent int32) (*kube, error) {
	klog.LogToStderr(false) // it reports each slow decision
	klog.SetOutput(io.Discard)
	client := fake.NewClientset()
	recorders := profile.NewRecorderFactory(events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()}))
	sched, err := scheduler.New(ctx, client, informers.NewSharedInformerFactory(client, 0), nil, recorders,
		scheduler.WithPercentageOfNodesToScore(&percent))
	if err != nil {
		return nil, fmt.Errorf("make kube-scheduler: %w", err)
	}
	k := &kube{
		label: label, ctx: ctx, logger: klog.FromContext(ctx), sched: sched,
		fwk: sched.Profiles[corev1.DefaultSchedulerName], places: make(map[string]int, len(fleet)),
	}
	for i, h := range fleet {
		node := kubeNode(i, h)
		k.places[node.Name] = i
		sched.Cache.AddNode(k.logger, node)
	}
	return k, nil
}

// kubeNode offers the free GPUs only: no pods stand for what is leased, which spares the scheduler looking at them.
func kubeNode(i int, h placement.Host) *corev1.Node {
	name := fmt.Sprintf("host-%06d", i)
	resources := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(h.CPUs), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(h.MemoryBytes, resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(podsPerNode, resource.DecimalSI),
		gpuResource:           *resource.NewQuantity(int64(freeGPUs(h)), resource.DecimalSI),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{
			corev1.LabelHostname:       name,
			corev1.LabelTopologyRegion: h.Region,
			modelLabel:                 label(h.Model),
			priceLabel:                 strconv.FormatInt(int64(h.Prices[placement.Hourly]), 10),
		}},
		Spec:   corev1.NodeSpec{Unschedulable: !h.Open},
		Status: corev1.NodeStatus{Capacity: resources, Allocatable: resources},
	}
}

func (k *kube) name() string { return k.label }

func (k *kube) prepare(serial int, r placement.Request) error {
	k.pods, k.assumed = k.pods[:0], nil
	affinity := &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: corev1.LabelTopologyRegion, Operator: corev1.NodeSelectorOpIn, Values: r.Regions},
				{Key: priceLabel, Operator: corev1.NodeSelectorOpLt, Values: []string{strconv.FormatInt(int64(r.MaxPrice)+1, 10)}},
			}}},
		},
	}}
	resources := corev1.ResourceList{gpuResource: *resource.NewQuantity(int64(r.GPUsPerNode), resource.DecimalSI)}
	for n := range r.Nodes {
		name := fmt.Sprintf("gang-%d-%d", serial, n)
		k.pods = append(k.pods, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault, UID: types.UID(name)},
			Spec: corev1.PodSpec{
				SchedulerName: corev1.DefaultSchedulerName,
				NodeSelector:  map[string]string{modelLabel: label(r.Model)},
				Affinity:      affinity,
				Containers: []corev1.Container{{
					Name: "ray", Image: "ray",
					Resources: corev1.ResourceRequirements{Requests: resources, Limits: resources},
				}},
			},
		})
	}
	return nil
}

func (k *kube) book() error {
	for _, pod := range k.pods {
		result, err := k.sched.SchedulePod(k.ctx, k.fwk, framework.NewCycleState(), pod)
		if err != nil {
			return fmt.Errorf("%s: %w", k.label, err)
		}
		assumed := pod.DeepCopy()
		assumed.Spec.NodeName = result.SuggestedHost
		if err := k.sched.Cache.AssumePod(k.logger, assumed); err != nil {
			return fmt.Errorf("%s: %w", k.label, err)
		}
		k.assumed = append(k.assumed, assumed)
	}
	return nil
}

func (k *kube) booked() []int {
	var hosts []int
	for _, pod := range k.assumed {
		hosts = append(hosts, k.places[pod.Spec.NodeName])
	}
	return hosts
}

func (k *kube) release() error {
	for _, pod := range k.assumed {
		if err := k.sched.Cache.ForgetPod(k.logger, pod); err != nil {
			return fmt.Errorf("%s: %w", k.label, err)
		}
	}
	return nil
}
