package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

// GetSchema describes the served subset, from the argument structs.
func (p *Provider) GetSchema(context.Context, plugin.GetSchemaRequest) (plugin.GetSchemaResponse, error) {
	resources := map[string]any{}
	for token, kind := range p.types {
		inputs, outs, required := kind.schema()
		resources[string(token)] = map[string]any{
			"inputProperties": inputs, "requiredInputs": required, "properties": outs,
		}
	}
	bytes, err := json.Marshal(map[string]any{
		"name": "docker", "version": Version,
		"description": "The offline docker provider: the part of the official one that this program uses.",
		"resources":   resources,
	})
	if err != nil {
		return plugin.GetSchemaResponse{}, fmt.Errorf("schema: %w", err)
	}
	return plugin.GetSchemaResponse{Schema: bytes}, nil
}

func (e erased[A]) schema() (inputs, outs map[string]any, required []string) {
	inputs, outs = map[string]any{}, map[string]any{}
	t := reflect.TypeFor[A]()
	for i := range t.NumField() {
		field := t.Field(i)
		name := propertyName(field)
		inputs[name], outs[name] = schemaType(field.Type), schemaType(field.Type)
		if hasRule(field, "required") {
			required = append(required, name)
		}
	}
	for _, key := range e.typed.computed() {
		outs[string(key)] = map[string]any{"type": "string"}
	}
	return inputs, outs, required
}

// schemaType spells a field's type; objects stay open maps, their fields are in the
// official provider's documentation.
func schemaType(t reflect.Type) map[string]any {
	anything := map[string]any{"$ref": "pulumi.json#/Any"}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaType(t.Elem())
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaType(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaType(t.Elem())}
	default:
		return map[string]any{"type": "object", "additionalProperties": anything}
	}
}
